"""Candidates that are trained by the recipe: seeds."""

import pytest

from cp_vision.search import Search, SearchConfig
from cp_vision.search.evaluators.checkpoints import keep_weights, weights_folder

TINY = {
    "base": "test_vit2",
    "model_kwargs": {"patch_size": 16, "depth": 3},
    "overrides": ("epochs=2", "warmup_epochs=0", "batch_size=256", "opt=adamw", "lr=0.004"),
    "seed": 7,
}


def trainer(output, **changes):
    return Search(SearchConfig(**{**TINY, **changes, "output": output})).trainer


def no_rungs(*_):
    """After epochs: nothing is asked."""


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A trainer of a search, and the base, which it has trained with the recipe's seed."""
    made = Search(SearchConfig(**TINY, output=tmp_path_factory.mktemp("search")))
    made.trainer(made.space.base, None, no_rungs)
    return made.trainer, made.space.base


def test_a_further_seed_is_another_training_in_a_folder_of_its_own(base, tmp_path):
    train, architecture = base
    own = train.folder(architecture)
    assert own == weights_folder(train.output, architecture) == train.folder(architecture, seed=7)
    before = weights(own)
    train(architecture, None, no_rungs, seed=8)
    further = train.folder(architecture, seed=8)
    assert further not in (own, train.folder(architecture, seed=9), train.folder(architecture, 16, 8))
    assert weights(own) == before != weights(further)
    # It is what a search with that seed trains.
    other = trainer(tmp_path, seed=8)
    other(architecture, None, no_rungs)
    assert weights(other.folder(architecture)) == weights(further)
    keep_weights(train.output, [(architecture, None)])
    assert own.exists()
    assert not further.exists()
    assert train.kept(architecture, seed=8) == further
    keep_weights(train.output, [(architecture, None), (architecture, None, 8)])
    assert own.exists()
    assert further.exists()


def test_the_recipes_own_seed_is_the_same_training(base):
    train, architecture = base
    before = weights(train.folder(architecture))
    train(architecture, None, no_rungs, seed=7)
    assert weights(train.folder(architecture)) == before
