"""What comes next in a search, whoever asks, and what is always in its race."""

import hashlib
import re

import pytest
import timm
import torch
from fake_evaluator import FakeEvaluator, journal

from cp_vision import Architecture
from cp_vision.search import Search, SearchConfig
from cp_vision.search.cli.main import main
from cp_vision.search.evaluators.base import Score
from cp_vision.search.evaluators.pruning import Pruner
from cp_vision.search.evaluators.sensitivity import UntrainedEvaluator
from cp_vision.search.executors.local import run_trials
from cp_vision.search.observer import Observer
from cp_vision.search.outputs.writer import ResultsWriter
from cp_vision.search.selection import keeps_accuracy
from cp_vision.shared.command_line import CommandError


def noise(architecture, salt=""):
    return int(hashlib.sha256((architecture.to_json() + salt).encode()).hexdigest()[:4], 16) / 65536


class Scorer(FakeEvaluator):
    """Every block that is left out costs points, and a pool brings some."""

    def __init__(self, drop, pool):
        super().__init__()
        self.drop, self.pool = drop, pool

    def __call__(self, architecture, img_size, on_epoch):
        points = self.pool * len(architecture.pools) - self.drop * len(architecture.drops)
        return Score(80 + points + noise(architecture), params=1000)


def twins(candidates, one):
    """The candidates that are the same without pools."""
    return [c for c in candidates if not c.pools and c.drops == one.drops and c.settings.get("img_size") == size(one)]


def size(candidate):
    return candidate.settings.get("img_size")


@pytest.mark.parametrize(("budget", "space"), [("0.7x", {"img_size": [32, 24]}), ("1.1x", {})])
def test_a_winner_that_drops_nothing_has_its_like_without_pools_beside_it(budget, space, tmp_path):
    """Smaller images, or a budget above the base, leave every block in."""
    config = SearchConfig(
        base="test_vit",
        budget=budget,
        space=space,
        trials=16,
        objective="single",
        output=tmp_path / "x",
        storage=journal(tmp_path / "x"),
        model_kwargs={"patch_size": 8},
    )
    results = Search(config).run(evaluator=Scorer(9.0, 2.0))
    winner = results.candidates[results.best]
    assert winner.pools
    assert not winner.drops
    (twin,) = twins(results.candidates, winner)
    assert results.pair == (winner.number, twin.number)


class Seeded(Scorer):
    """The same after a training with a seed: so many points of luck, by the seed and the architecture."""

    def __init__(self, drop, pool, luck):
        super().__init__(drop, pool)
        self.luck, self.trained = luck, []

    def __call__(self, architecture, img_size, on_epoch, seed=None):
        score = super().__call__(architecture, img_size, on_epoch)
        if seed is not None:
            self.trained.append((architecture, seed))
        return Score(score.accuracy + self.luck * noise(architecture, str(seed)), score.params)


def searched(folder, own, **values):
    """A search with finalists, by a scorer in place of trainings."""
    values = {"storage": journal(folder), "trials": 24, "finalists": 4, **values}
    config = SearchConfig(base="test_vit2", output=folder, **values)
    search = Search(config)
    with search._opened() as store:
        queue = search._queue(store, repeats=True)
        run_trials(store, queue, own, own, Pruner(None, store), Observer(), lambda candidate: None)
        return ResultsWriter(config, search.contents(), store).write()


@pytest.mark.parametrize("evaluator", ["train", "supernet"])
@pytest.mark.parametrize(("keep", "luck"), [(None, 0.2), (None, 5.0), (2.0, 0.2), (2.0, 5.0)])
def test_finalists(keep, luck, evaluator, tmp_path):
    """The best, those that answer what pooling buys, and the base are trained with every seed; one of them wins."""
    own = Seeded(0.8, 0.4, luck)
    results = searched(tmp_path / "x", own, keep_accuracy=keep, evaluator=evaluator, seed=7)
    finalists = [c for c in results.candidates if c.by_seed]
    assert all(set(c.by_seed) == {7, 8, 9} for c in finalists)
    first = [] if evaluator == "supernet" else [c.by_seed[7] == c.accuracy for c in finalists]
    assert all(first)
    assert len(own.trained) == len(set(own.trained)) == len(finalists) * (3 if evaluator == "supernet" else 2)
    assert {0, results.best, *results.pair} <= {c.number for c in finalists}
    pooled, unpooled = (results.candidates[number] for number in results.pair)
    assert pooled.pools
    assert twins(results.candidates, pooled) == [unpooled]
    within = [c for c in results.candidates if c.within_budget]
    if keep is None:
        best = sorted(within, key=lambda c: -c.accuracy)[:4]
        assert {c.number for c in best} <= {c.number for c in finalists}
        # By the mean, not by the luckiest training.
        assert results.best == max((c for c in finalists if c.within_budget), key=lambda c: c.mean).number
    else:
        base = results.candidates[0]
        kept = [c for c in finalists if keeps_accuracy(c, base, results.candidates, keep)]
        assert results.best == min(kept, key=lambda c: (c.macs, -c.mean)).number
        assert all(c.is_base or c.mean > base.mean - keep for c in kept)


def test_status_tells_how_many_trainings_of_finalists_are_left(tmp_path, capsys):
    class Stopped(Seeded):
        def __call__(self, architecture, img_size, on_epoch, seed=None):
            if len(self.trained) == 5:
                raise KeyboardInterrupt
            return super().__call__(architecture, img_size, on_epoch, seed)

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "x", Stopped(0.8, 0.4, 0.2))
    told = []
    rest = Seeded(0.8, 0.4, 0.2)
    for again in (lambda: None, lambda: searched(tmp_path / "x", rest)):
        again()
        capsys.readouterr()
        assert main(["status", str(tmp_path / "x")]) == 0
        told.append(re.search(r"(\d+) more trainings of finalists", capsys.readouterr().out))
    assert int(told[0][1]) == len(rest.trained) > 5
    assert told[1] is None


def test_where_the_cheapest_do_not_keep_the_accuracy_others_are_trained(tmp_path):
    """Shared weights flatter what is cheap: trained by themselves, only what drops little keeps the accuracy."""

    class Flattering(Scorer):
        def __call__(self, architecture, img_size, on_epoch, seed=None):
            flattered = seed is None
            lost = 0.0 if flattered else 1.5 * len(architecture.drops)
            return Score(80 - lost + 0.1 * noise(architecture, str(seed)), params=1000)

    own = Flattering(0, 0)
    results = searched(tmp_path / "x", own, keep_accuracy=3.5, evaluator="supernet", finalists=20)
    winner = results.candidates[results.best]
    assert 0 < len(winner.drops) <= 2
    assert winner.mean > results.candidates[0].mean - 3.5


def test_a_finalist_that_fails_with_one_seed_has_the_others(tmp_path):
    def fail(architecture, img_size, on_epoch, seed=None):
        if seed == 1 and not architecture.drops:
            raise RuntimeError("the loss is not finite")
        return Scorer(0.8, 0.4)(architecture, img_size, on_epoch)

    base = searched(tmp_path / "x", fail).candidates[0]
    assert set(base.by_seed) == {0, 2}
    assert "seed 1: the loss is not finite" in base.reason


def test_a_head_that_knows_nothing_is_refused_whatever_it_guesses(tmp_path):
    args = {"img_size": 32, "patch_size": 8, "init_values": 1.0}
    torch.save(timm.create_model("test_vit2", num_classes=1000, **args).state_dict(), tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth"), "num_classes": 1000}
    for seed in range(2):
        overrides = (f"initial_checkpoint={tmp_path / 'weights.pth'}",)
        config = SearchConfig(
            base="test_vit2", evaluator="sensitivity", seed=seed, overrides=overrides, output=tmp_path / "out"
        )
        trainer = Search(config).trainer
        # What pretrained=true does where the published weights are those of other classes.
        trainer.build = lambda a: timm.create_model(
            a.model_name, pretrained=True, pretrained_cfg_overlay=overlay, **a.create_args
        )
        for _ in range(2):
            with pytest.raises(CommandError, match="no more than by guessing"):
                UntrainedEvaluator(trainer)(
                    Architecture("test_vit2", model_args={**args, "num_classes": 10}), None, None
                )
