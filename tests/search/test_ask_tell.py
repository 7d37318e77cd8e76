"""A search whose candidates the caller scores."""

import pytest
from fake_evaluator import FakeEvaluator, journal

from cp_vision import UserError
from cp_vision.search import Search, SearchConfig
from cp_vision.shared.command_line import CommandError


def config(output, **changes):
    return SearchConfig(**{"base": "test_vit2", "output": output, "storage": journal(output), "trials": 9, **changes})


def score(proposal):
    return FakeEvaluator()(proposal.architecture, proposal.img_size, lambda *_: None).accuracy


def key(results):
    return [(c.number, c.pools, c.drops, c.accuracy) for c in results.candidates]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of a search that nobody asked."""
    return Search(config(tmp_path_factory.mktemp("whole"))).run(evaluator=FakeEvaluator())


def test_asking_and_telling_is_the_same_search(whole, tmp_path):
    told = []
    with Search(config(tmp_path / "asked")) as search:
        while (proposal := search.ask()) is not None:
            told.append(search.tell(proposal.number, score(proposal)))
        assert [c.number for c in told] == list(range(len(told)))
    fake = FakeEvaluator()
    again = Search(config(tmp_path / "asked")).run(evaluator=fake)
    assert fake.seen == []
    assert key(again) == key(whole)
    assert (tmp_path / "asked" / "pareto.csv").exists()


def test_begun_by_one_and_finished_by_the_other(whole, tmp_path):
    search = Search(config(tmp_path / "both"))
    first = search.ask()
    open_ones = [search.ask() for _ in range(2)]
    assert [p.number for p in (first, *open_ones)] == [0, 1, 2]
    search.tell(first.number, score(first))
    # What wasn't told is given back, and run() tries it.
    assert key(search.run(evaluator=FakeEvaluator())) == key(whole)
    assert search.ask() is None
    search.close()


def test_told_by_a_later_process(tmp_path):
    with Search(config(tmp_path)) as search:
        base = search.ask()
    with Search(config(tmp_path)) as search:
        assert search.tell(base.number, 60.0).accuracy == 60.0
        open_one = search.ask()
        with Search(config(tmp_path)) as other, pytest.raises(UserError, match=f"candidate {open_one.number} "):
            other.tell(open_one.number, 70.0)
        failed = search.tell(open_one.number, failed="out of memory")
        assert (failed.state, failed.reason, failed.accuracy) == ("failed", "out of memory", None)


def test_what_cant_be_told_is_one_line(tmp_path):
    with Search(config(tmp_path)) as search:
        search.ask()
        for told in (
            {"number": 5, "accuracy": 1.0},
            {"number": -1, "accuracy": 1.0},
            {"number": 0},
            {"number": 0, "accuracy": float("nan")},
            {"number": 0, "accuracy": 1.0, "failed": "both"},
        ):
            with pytest.raises(UserError, match=f"candidate {told['number']}") as caught:
                search.tell(**told)
            assert "\n" not in str(caught.value)
        assert search.tell(0, 50.0).state == "complete"
        with pytest.raises(UserError, match="candidate 0 is finished"):
            search.tell(0, 50.0)


def test_beside_the_base_come_those_that_only_drop(whole, tmp_path):
    """What else comes is chosen by what the base scores."""
    with Search(config(tmp_path)) as search:
        begun = [search.ask() for _ in range(4)]
        assert search.ask() is None
        for proposal in begun[1:]:
            search.tell(proposal.number, score(proposal))
            assert (tmp_path / "report.html").exists()
        assert [bool(p.architecture.drops) for p in begun] == [False, True, True, True]
        assert not any(p.architecture.pools for p in begun)
        assert search.ask() is None
        search.tell(begun[0].number, score(begun[0]))
        assert search.ask().number == 4
    assert key(Search(config(tmp_path)).run(evaluator=FakeEvaluator())) == key(whole)


def test_a_base_that_fails_beside_others_stays_the_first(whole, tmp_path):
    for failing in range(2):
        with Search(config(tmp_path)) as search:
            base, other = search.ask(), search.ask()
            assert (base.number, base.architecture.drops, other.number) == (0, (), 1 + failing)
            search.tell(other.number, score(other))
            with pytest.raises(CommandError, match="out of memory"):
                search.tell(base.number, failed="out of memory")
    assert key(Search(config(tmp_path)).run(evaluator=FakeEvaluator())) == key(whole)


def test_a_base_that_fails_ends_it_and_is_asked_for_again(tmp_path):
    with Search(config(tmp_path)) as search:
        base = search.ask()
        with pytest.raises(CommandError, match="out of memory"):
            search.tell(base.number, failed="out of memory")
        assert search.ask() == base
