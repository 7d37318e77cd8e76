"""Updates and epochs."""

import numpy as np
import pytest
import torch
from digits_folder import CPU, digits, parts

from cp_vision.recipes import (
    Trainer,
    evaluate,
    train,
)
from cp_vision.recipes.models import build_model, model_args


@pytest.mark.parametrize(
    "settings",
    [
        ["grad_accum_steps=2", "batch_size=32"],
        ["amp=true", "channels_last=true"],
        # Float16 is slow on a CPU.
        pytest.param(
            ["amp=true", "amp_dtype=float16", "model_kwargs={patch_size: 16, depth: 1, init_values: 1.0}"],
            marks=pytest.mark.slow,
        ),
        ["grad_checkpointing=true", "clip_mode=value"],
        ["bce_loss=true", "mixup=0.1", "cutmix=0.5", "mixup_off_epoch=2", "aug_repeats=3"],
        ["model_ema=true", "model_ema_decay=0.9", "sched=none", "opt=adamw", "lr=0.003"],
        ["model=cp_test_resnet", "model_kwargs={}", "opt=adamw", "lr=0.004", "reprob=0.2", "clip_mode=agc"],
        ["model_kwargs={patch_size: 16, depth: 1, init_values: 1.0}", "sched_on_updates=true"],
        pytest.param(["torchcompile=inductor"], marks=pytest.mark.slow),
    ],
)
def test_training_learns(settings):
    recipe = digits(*settings)
    model, loader, scoring = parts(recipe, images=512)
    trainer = Trainer(model, recipe, loader, CPU)
    losses = [trainer.train_epoch() for _ in range(trainer.epochs)]
    assert losses[-1] < losses[0]
    scores = evaluate(model if trainer.averaged is None else trainer.averaged, scoring, CPU, recipe)
    assert scores["top5"] >= scores["top1"] > 15
    assert trainer.skipped == 0
    # Whatever wraps the model in training, its weights keep their names.
    plain = build_model(recipe.model, model_args(recipe.model, recipe, 10, recipe.model_kwargs))
    assert trainer.state_dict()["model"].keys() == plain.state_dict().keys()


def test_accumulated_micro_batches_make_the_same_update():
    losses = {}
    for steps in (1, 4):
        recipe = digits(f"batch_size={64 // steps}", f"grad_accum_steps={steps}", "opt=sgd", "lr=0.1")
        model, loader, _ = parts(recipe, images=512)
        trainer = Trainer(model, loader.recipe, loader, CPU)
        losses[steps] = []
        trainer.train_epoch(losses[steps].append)
    assert len(losses[1]) == loader.updates == 8
    assert np.allclose(losses[1], losses[4], atol=1e-5)


def test_train_is_the_trainers_epochs_one_after_another():
    recipe, told = digits("model_ema=true"), []
    model, loader, _ = parts(recipe, images=256)
    averaged = train(model, recipe, loader, CPU, lambda *epoch: told.append(epoch))
    model, loader, _ = parts(recipe, images=256)
    trainer = Trainer(model, recipe, loader, CPU)
    losses = [trainer.train_epoch() for _ in range(3)]
    assert [epoch[:3] for epoch in told] == [(1, 3, losses[0]), (2, 3, losses[1]), (3, 3, losses[2])]
    assert told[-1][3] is averaged
    assert not averaged.training
    for one, other in zip(averaged.parameters(), trainer.averaged.parameters(), strict=True):
        assert torch.equal(one, other)
