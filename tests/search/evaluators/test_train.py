"""Candidates that are trained by the recipe: seeds, and trainings that are killed."""

import signal

import pytest
import torch
from search_process import start_training

from cp_vision.recipes.training.trainer import TrainingError
from cp_vision.search import Search, SearchConfig
from cp_vision.search.evaluators.base import NotKeptError, OutOfTimeError, StoppedEarly
from cp_vision.search.evaluators.checkpoints import keep_weights, weights_folder
from cp_vision.search.study.progress import progress_of, training_folder

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


@pytest.mark.slow
def test_killed_at_any_update_a_candidate_ends_with_the_same_weights(tmp_path):
    """What a training draws and keeps beside its weights: augmentation, mixing, dropout, averages, momenta, rates."""
    more = ["mixup=0.2", "reprob=0.3", "drop_path=0.2", "hflip=0.5", "model_ema=true", "model_ema_decay=0.9"]
    more += ["batch_size=64", "grad_accum_steps=2", "sched_on_updates=true", "epochs=3", "workers=1"]
    values = {**TINY, "overrides": (*TINY["overrides"], *more)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = trainer(tmp_path / "whole", **values)
        architecture = Search(SearchConfig(**values, output=tmp_path / "whole")).space.base
        score, output, reached = whole(architecture, None, no_rungs), tmp_path / "killed", [(0, 0)]
        # The first one before there is a state, one at an epoch's end, and one that gets no further than that.
        for update in (1, 9, 2, 1, 7):
            process = start_training({**values, "output": output}, update)
            process.join(120)
            assert process.exitcode == -signal.SIGKILL
            reached.append(progress_of(output, architecture))
        assert reached == sorted(reached)
        assert reached[1] == (0, 0) < reached[2] < reached[3] == reached[4] < reached[5] < (2, 8)
        killed = trainer(output, **values)
        assert killed(architecture, None, no_rungs) == score
    finally:
        torch.set_num_threads(threads)
    assert weights(killed.folder(architecture)) == weights(whole.folder(architecture))
    assert not (output / ".training").exists()


def interrupted(error, epoch=1):
    """After an epoch this is raised."""

    def on_epoch(done, *_):
        if done == epoch:
            raise error

    return on_epoch


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (KeyboardInterrupt(), True),
        # As Tune ends it.
        (SystemExit(), True),
        (NotKeptError("full"), True),
        (StoppedEarly(10.0), False),
        (TrainingError("nan"), False),
        (MemoryError("none"), False),
    ],
)
def test_a_state_is_kept_of_what_goes_on_alone(error, kept, base, tmp_path):
    whole, architecture = base
    train = trainer(tmp_path)
    with pytest.raises(type(error)):
        train(architecture, None, interrupted(error))
    assert (tmp_path / ".training").exists() == kept
    epochs = []
    train(architecture, None, lambda epoch, *_: epochs.append(epoch))
    # An epoch that was not told of to its end is told of again.
    assert epochs == [1, 2]
    assert weights(train.folder(architecture)) == weights(whole.folder(architecture))
    assert not (tmp_path / ".training").exists()


def test_what_was_told_of_before_is_not_told_of_again(base, tmp_path):
    whole, architecture = base
    train, epochs = trainer(tmp_path), []
    with pytest.raises(KeyboardInterrupt):
        train(architecture, None, interrupted(KeyboardInterrupt(), 2))
    (state,) = tmp_path.glob(".training/*/checkpoint.pt")
    saved = torch.load(state, weights_only=True)
    train(architecture, None, lambda epoch, *_: epochs.append(epoch))
    assert epochs == list(range(saved["progress"]["epoch"] + 1, 3))
    assert weights(train.folder(architecture)) == weights(whole.folder(architecture))


@pytest.mark.parametrize("damage", ["other recipe", "other seed", "no state", "half of it"])
def test_what_is_no_state_of_this_training_is_begun_at_its_start(damage, base, tmp_path):
    whole, architecture = base
    other = (
        trainer(tmp_path, overrides=(*TINY["overrides"], "lr=0.1")) if damage == "other recipe" else trainer(tmp_path)
    )
    with pytest.raises(KeyboardInterrupt):
        other(architecture, None, interrupted(KeyboardInterrupt()), seed=8 if damage == "other seed" else None)
    folder = training_folder(tmp_path, architecture, seed=8 if damage == "other seed" else None)
    file = folder / "checkpoint.pt"
    if damage == "no state":
        file.write_bytes(b"none")
    elif damage == "half of it":
        file.write_bytes(file.read_bytes()[:1000])
    (folder / "checkpoint.previous.pt").unlink(missing_ok=True)
    train, epochs = trainer(tmp_path), []
    train(architecture, None, lambda epoch, *_: epochs.append(epoch))
    assert epochs == [1, 2]
    assert weights(train.folder(architecture)) == weights(whole.folder(architecture))


def test_time_before_a_kill_counts(base, tmp_path):
    _, architecture = base
    train = trainer(tmp_path, trial_seconds=1000)
    with pytest.raises(KeyboardInterrupt):
        train(architecture, None, interrupted(KeyboardInterrupt()))
    (file,) = tmp_path.glob(".training/*/checkpoint.pt")
    state = torch.load(file, weights_only=True)
    assert 0 < state["seconds"] < 1000
    torch.save({**state, "seconds": 999.99}, file)
    with pytest.raises(OutOfTimeError):
        train(architecture, None, no_rungs)
    assert not (tmp_path / ".training").exists()


def test_states_of_candidates_that_nobody_trains_are_removed(base, tmp_path):
    _, architecture = base
    train = trainer(tmp_path)
    for seed in (None, 8):
        with pytest.raises(KeyboardInterrupt):
            train(architecture, None, interrupted(KeyboardInterrupt()), seed)
    kept, other = (training_folder(tmp_path, architecture, seed=seed) for seed in (8, None))
    keep_weights(tmp_path, [(architecture, None, 8)])
    assert kept.exists()
    assert not other.exists()
    keep_weights(tmp_path, [])
    assert not (tmp_path / ".training").exists()
