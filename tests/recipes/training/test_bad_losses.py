"""Losses and gradients that are not finite."""

import numpy as np
import pytest
import torch
from digits_folder import CPU, SMALL, digits, parts, sets

from cp_vision.recipes import Trainer, TrainingError
from cp_vision.recipes.cli import main
from cp_vision.recipes.run.checkpoints import load_state


@pytest.mark.parametrize("model", ["cp_test_vit2", "cp_test_resnet"])
def test_updates_with_a_bad_loss_are_skipped_and_counted(model):
    recipe = digits("epochs=1", f"model={model}", "model_ema=true", *(["model_kwargs={}"] * ("resnet" in model)))
    model, loader, _ = parts(recipe, images=640)
    trainer = Trainer(model, recipe, loader, CPU)
    clean, bad = loader.epoch, {3, 7, 8}

    def spoilt(epoch, first=0):
        for number, (images, targets) in enumerate(clean(epoch, first)):
            yield images * float("nan" if number in bad else 1), targets

    loader.epoch = spoilt
    losses, states = [], []

    def on_update(loss):
        losses.append(loss)
        states.append({key: value.clone() for key, value in model.state_dict().items()})
        # Running statistics of a spoilt batch would be there to stay.
        assert trainer.is_sound()

    mean = trainer.train_epoch(on_update)
    assert trainer.skipped == 3
    assert {i for i, loss in enumerate(losses) if not np.isfinite(loss)} == bad
    assert np.isfinite(mean)
    for i in range(1, len(states)):
        same = all(torch.equal(value, states[i - 1][key]) for key, value in states[i].items())
        assert same is (i in bad)


def test_a_loss_that_stays_bad_stops_the_training_with_its_last_good_checkpoint(tmp_path, capsys):
    settings = [*SMALL, "opt=sgd", "lr=1e30", "clip_grad=null", "warmup_epochs=0", "recovery_interval=1"]
    assert main(["digits", *sets(settings), "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert all(name in error for name in ("nan", "11 times", "epoch 1", "lr", "clip_grad"))
    assert not (tmp_path / "out" / "summary.json").exists()
    state, _ = load_state(tmp_path / "out")
    assert state is None or all(value.isfinite().all() for value in state["model"].values())
    model, loader, _ = parts(digits(), images=1024)
    trainer = Trainer(model, loader.recipe, loader, CPU)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    assert not trainer.is_sound()
    with pytest.raises(TrainingError, match="11 times in a row"):
        trainer.train_epoch()


def test_a_gradient_that_is_not_finite_changes_no_weight():
    model, loader, _ = parts(digits("clip_grad=1.0"), images=128)
    trainer = Trainer(model, loader.recipe, loader, CPU)
    model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = [parameter.clone() for parameter in model.parameters()]
    assert np.isnan(trainer.one_update())
    assert trainer.skipped == 1
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
