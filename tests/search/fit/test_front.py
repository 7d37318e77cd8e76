"""The front of the additive table, against every candidate there is; exploring, against the truth of small spaces."""

import itertools
import random

import pytest

from cp_vision.search.fit.explore import explore
from cp_vision.search.fit.front import Front, all_candidates
from cp_vision.search.fit.option import Option, saved_by


def option(place, kind, half, first, stop, saved, score):
    return Option(place, kind, True, half, first, stop, (place,), {}, {"macs": saved}, None, score)


def random_options(seed, blocks, kinds=2, max_run=3, halves=("attn", "mlp")):
    draw = random.Random(seed)
    options = []
    for first in range(blocks):
        for stop in range(first + 1, min(first + max_run, blocks) + 1):
            if draw.random() < 0.8:
                options += [
                    option(
                        f"{first}:{stop}", f"k{k}", "", first, stop, draw.randint(1, 40) * (stop - first), draw.random()
                    )
                    for k in range(kinds)
                ]
        options += [
            option(f"{first}.{half}", f"k{k}", half, first, first + 1, draw.randint(1, 20), draw.random() / 2)
            for half in halves
            for k in range(kinds)
            if draw.random() < 0.5
        ]
    return options


def total(candidate):
    return sum(o.score for o in candidate)


def saved(candidate):
    return saved_by(candidate, "macs")


@pytest.mark.parametrize("seed", range(12))
def test_the_front_is_that_of_all_candidates(seed):
    options = random_options(seed, blocks=4)
    everything = list(all_candidates(options, 4))
    assert len(set(everything)) == len(everything)
    front = Front(options, 4)
    assert front.most == max(map(saved, everything))
    for need in range(0, front.most + 2, 3):
        truth = min((total(c) for c in everything if saved(c) >= need), default=None)
        best = front.best(need)
        if truth is None:
            assert best is None
        else:
            assert saved(best) >= need
            assert total(best) == pytest.approx(truth, abs=1e-12)
    points = list(front)
    assert points[0][2] == ()
    for before, after in itertools.pairwise(points):
        assert before[0] < after[0]
        assert before[1] < after[1]
    assert all(saved(c) == s and total(c) == pytest.approx(v) for s, v, c in points)


def test_a_block_stays():
    options = [option("0", "drop", "", 0, 1, 10, 0.1), option("1", "drop", "", 1, 2, 10, 0.2)]
    options.append(option("0:1", "drop", "", 0, 2, 20, 0.0))
    front = Front(options, 2)
    assert front.most == 10
    assert front.best(11) is None
    # With a half replaced it has stayed.
    options.append(option("1.mlp", "linear", "mlp", 1, 2, 6, 0.3))
    assert [o.place for o in Front(options, 2).best(11)] == ["0", "1.mlp"]


@pytest.mark.parametrize("seed", range(4))
def test_small_spaces_are_searched_whole(seed):
    options = random_options(seed, blocks=3, kinds=1, max_run=1, halves=())
    draw = random.Random(seed)
    real = {candidate: draw.random() for candidate in all_candidates(options, 3)}
    need = 5
    scored = explore(options, 3, need, real.__getitem__, tries=100)
    assert scored == sorted((v, c) for v, c in zip(real.values(), real, strict=True) if saved(c) >= need)[: len(scored)]
    assert len(scored) == sum(saved(c) >= need for c in real)


@pytest.mark.parametrize("seed", range(6))
def test_exploring_learns_what_doesnt_add_up(seed):
    """Where neighbouring changes make each other worse, real scores find a better candidate than the table's best."""
    options = random_options(seed, blocks=6, kinds=2, max_run=2, halves=())
    seen = []

    def score(candidate):
        seen.append(candidate)
        pairs = itertools.pairwise(candidate)
        return total(candidate) * (1 + 2 * sum(a.stop == b.first for a, b in pairs))

    need = Front(options, 6).most // 2
    scored = explore(options, 6, need, score, tries=24)
    assert len(seen) == len(set(seen)) <= 24
    assert all(saved(c) >= need for _, c in scored)
    truth = min(score(c) for c in all_candidates(options, 6) if saved(c) >= need)
    first = score(Front(options, 6).best(need))
    assert scored[0][0] <= first
    assert scored[0][0] <= truth + 0.34 * (first - truth) + 1e-12


def test_known_scores_are_learned_from():
    options = random_options(3, blocks=6, kinds=2, max_run=2, halves=())
    need = Front(options, 6).most // 2
    plain = [option for option in options if option.kind == "k0"]
    known = {candidate: 2 * total(candidate) for _, candidate in explore(plain, 6, need, total, tries=8)}
    seen = []

    def score(candidate):
        seen.append(candidate)
        return total(candidate)

    scored = explore(options, 6, need, score, 5, {**known, (): 0.0})
    assert len(seen) <= 5
    # The base saves nothing.
    assert {candidate for _, candidate in scored} == set(seen) | known.keys()
    # None of these is of the plain options alone.
    assert explore(plain, 6, need, total, 5, dict.fromkeys(seen, 0.0))[0][0] > 0


def test_nothing_saves_so_much():
    options = random_options(0, blocks=3)
    assert explore(options, 3, 10**6, total, tries=5) == []
