"""What comes next in a search, whoever asks, and what is always in its race."""

import hashlib
import shutil

import pytest
import timm
import torch
from fake_evaluator import FakeEvaluator

from cp_vision import Architecture
from cp_vision.search import Search, SearchConfig
from cp_vision.search.evaluators.base import Score
from cp_vision.search.evaluators.sensitivity import UntrainedEvaluator
from cp_vision.search.observer import Observer
from cp_vision.search.outputs.finalize import Finalizer
from cp_vision.search.outputs.writer import ResultsWriter
from cp_vision.search.study.trials import TrialStore
from cp_vision.search.study.workers import Worker
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
        output=tmp_path,
        model_kwargs={"patch_size": 8},
    )
    results = Search(config).run(evaluator=Scorer(9.0, 2.0))
    winner = results.candidates[results.best]
    assert winner.pools
    assert not winner.drops
    (twin,) = twins(results.candidates, winner)
    told = (tmp_path / "report.html").read_text()
    assert f"the winner against the {'base' if twin.is_base else 'best without pools'}, #{twin.number}." in told


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Folders of searches that are scored and have no finalists yet, by how far accuracy may fall."""
    folders = {keep: tmp_path_factory.mktemp("scored") for keep in (None, 2.0)}
    for keep, folder in folders.items():
        Search(with_finalists(folder, keep)).run(evaluator=Scorer(0.8, 0.4))
    return folders


def with_finalists(folder, keep):
    return SearchConfig(
        base="test_vit2", evaluator="supernet", finalists=4, keep_accuracy=keep, trials=24, output=folder
    )


@pytest.mark.parametrize(("keep", "rng"), [(None, ""), (2.0, ""), (None, "a")])
def test_finalists(keep, rng, scored, tmp_path):
    """After shared weights the winner's like without pools is trained, too, and of those that keep the cheapest."""
    shutil.copytree(scored[keep], tmp_path / "x")
    config = with_finalists(tmp_path / "x", keep)
    search = Search(config)
    study, storage = search.open_study()
    record = TrialStore(study, storage, search.space, Worker(study, search.output))
    record.sync()
    writer = ResultsWriter(config, search.contents(), record)
    finalizer = Finalizer(search, writer, Observer())
    own = Scorer(0.8, 0.4)
    # With a rng of their own trainings order the candidates otherwise than shared weights did.
    finalizer.trainer = lambda a, *_: Score(own(a, None, None).accuracy + 2 * noise(a, rng) - noise(a), 1000)
    finalizer._train_finalists()
    record.sync()
    found, winner = writer.candidates(), writer.leaders().best
    assert winner.pools or keep
    if winner.pools:
        (twin,) = twins(found, winner)
        assert twin.trained is not None
    if keep is not None:
        floor = found[0].accuracy - keep
        cheapest = sorted((c for c in found if c.accuracy >= floor and c.within_budget), key=lambda c: c.macs)[:4]
        assert all(c.trained is not None for c in cheapest)


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
