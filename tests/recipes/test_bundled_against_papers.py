"""Bundled recipes: what their headers must say, and each value of a paper's training beside the recipe's."""

import re

import pytest
import torch
from digits_folder import CPU
from timm.data.auto_augment import rand_augment_transform
from timm.layers import DropPath
from torch.nn.functional import binary_cross_entropy_with_logits

from cp_vision.recipes import build_model, load_recipe
from cp_vision.recipes.models import model_args
from cp_vision.recipes.recipe.keys import BUNDLED, Recipe, bundled_recipes
from cp_vision.recipes.recipe.yaml_text import parse_yaml
from cp_vision.recipes.training.task import make_task

# Ours, or what no paper fixes: the model and its pools, how the images of an update are divided, the machine; bfloat16
# in place of float16, which needs no scaling of gradients.
OURS = {"model", "num_classes", "workers", "amp_dtype", "channels_last", "batch_size", "grad_accum_steps"}

# arXiv 2110.00476, Table 2. With it mmpretrain's configs/resnet/resnet50_8xb256-rsb-a{1-600e,2-300e,3-100e}_in1k.py at
# ee7f2e88: the same, and eta_min 1e-6. In the paper an image counts for all classes that it is mixed of; the threshold
# 0.2 is timm's for that, and in A1 would undo the smoothing. Neither tells timm's rate at which the warm-up starts.
STRIKES_BACK = {
    "sched": "cosine",
    "opt": "lamb",
    "warmup_epochs": 5,
    "warmup_lr": 1e-4,
    "min_lr": 1e-6,
    "crop_pct": 0.95,
    "interpolation": "bicubic",
    "bce_loss": True,
    "cutmix": 1.0,
    "amp": True,
    "update_size": 2048,
    "model_kwargs": {"pools": ["maxpool"]},
}
A1 = {
    "epochs": 600,
    "img_size": 224,
    "lr": 5e-3,
    "weight_decay": 0.01,
    "smoothing": 0.1,
    "drop_path": 0.05,
    "aug_repeats": 3,
    "aa": "rand-m7-mstd0.5-inc1",
    "mixup": 0.2,
}
A2 = A1 | {"epochs": 300, "weight_decay": 0.02, "smoothing": 0.0, "mixup": 0.1, "bce_target_thresh": 0.2}
A3 = A2 | {
    "epochs": 100,
    "img_size": 160,
    "lr": 8e-3,
    "drop_path": 0.0,
    "aug_repeats": 0,
    "aa": "rand-m6-mstd0.5-inc1",
}

# facebookresearch/deit at 7e160fe4, defaults of main.py; lr 5e-4 for 512 images there, times 1024 / 512 (its line
# linear_scaled_lr); samplers.py: num_repeats 3.
DEIT = {
    "epochs": 300,
    "img_size": 224,
    "update_size": 1024,
    "opt": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.05,
    "sched": "cosine",
    "warmup_epochs": 5,
    "warmup_lr": 1e-6,
    "min_lr": 1e-5,
    "smoothing": 0.1,
    "drop_path": 0.1,
    "aug_repeats": 3,
    "aa": "rand-m9-mstd0.5-inc1",
    "train_interpolation": "bicubic",
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "reprob": 0.25,
    "remode": "pixel",
    "recount": 1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "model_ema": True,
    "model_ema_decay": 0.99996,
    "amp": True,
}

# The same at 7e160fe4, README_revenge.md: the command of deit_small_patch16_LS; models_v2.py: init_scale=1e-4, and
# dpr = [drop_path_rate for i in range(depth)]; engine.py: targets.gt(0.0); augment.py: 3Augment; main.py: opt_eps 1e-8,
# min_lr 1e-5. Its LAMB (NVIDIA's FusedLAMB) clips to norm 1, as timm's does.
DEIT3 = {
    "epochs": 800,
    "img_size": 224,
    "update_size": 2048,
    "opt": "lamb",
    "opt_eps": 1e-8,
    "lr": 4e-3,
    "weight_decay": 0.05,
    "sched": "cosine",
    "warmup_epochs": 5,
    "warmup_lr": 1e-6,
    "min_lr": 1e-5,
    "smoothing": 0.0,
    "bce_loss": True,
    "bce_target_thresh": 0.0,
    "model_kwargs": {"init_values": 1e-4},
    "drop_path": 0.05,
    "drop_path_uniform": True,
    "aug_repeats": 3,
    "aa": "3a",
    "color_jitter": 0.3,
    "train_interpolation": "bicubic",
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "mixup": 0.8,
    "cutmix": 1.0,
    "amp": True,
}

PUBLISHED = {
    "cp_resnet50_a1": STRIKES_BACK | A1,
    "cp_resnet50_a2": STRIKES_BACK | A2,
    "cp_resnet50_a3": STRIKES_BACK | A3,
    "cp_vit_small_deit": DEIT,
    "cp_vit_base_deit": DEIT,
    "cp_vit_small_deit3": DEIT3,
}


@pytest.mark.parametrize("path", bundled_recipes(), ids=lambda p: p.stem)
def test_bundled_recipes_are_valid_and_say_what_they_cost(path):
    recipe = load_recipe(path)
    assert load_recipe(path.stem) == recipe
    header = path.read_text().split("\n\n")[0]
    assert re.search(r"^# Command: .*cp-(train|search)", header, re.M)
    assert re.search(r"[Rr]each|Not run at full length here", header)
    assert "Cost:" in header


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_of_papers_have_the_papers_values(name):
    recipe, published = load_recipe(name), PUBLISHED[name]
    assert {key: getattr(recipe, key) for key in published} == published
    # And nothing else, said or by default.
    said = parse_yaml((BUNDLED / f"{name}.yaml").read_bytes(), name).keys()
    assert said - OURS <= published.keys()
    defaults = Recipe()
    for key in Recipe.model_fields.keys() - published.keys() - OURS:
        assert getattr(recipe, key) == getattr(defaults, key), key


@pytest.mark.parametrize("path", bundled_recipes(), ids=lambda p: p.stem)
def test_no_key_of_a_bundled_recipe_is_without_effect(path):
    said = parse_yaml(path.read_bytes(), path.name)
    if (said.get("aa") or "").startswith("rand"):
        assert "color_jitter" not in said, "timm leaves it out under RandAugment"
    if said["opt"] == "lamb":
        assert "clip_grad" not in said, "timm's LAMB clips to norm 1 itself"


@pytest.mark.parametrize(("name", "magnitude"), [("a1", 7), ("a2", 7), ("a3", 6)])
def test_resnet_strikes_back_takes_the_increasing_rand_augment(name, magnitude):
    augment = rand_augment_transform(load_recipe(f"cp_resnet50_{name}").aa, {})
    assert {op.magnitude for op in augment.ops} == {magnitude}
    assert {"PosterizeIncreasing", "SharpnessIncreasing"} <= {op.name for op in augment.ops}


def test_deit3_takes_every_class_of_a_mixed_image_for_whole():
    recipe = load_recipe("cp_vit_small_deit3").with_values(drop_path_uniform=False)
    _, task = make_task(build_model("cp_test_vit2", {"num_classes": 3}), recipe, CPU)
    logits = torch.randn(2, 3)
    loss = task.criterion(logits, torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0]]))
    whole = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(logits, whole))


def test_deit3_scales_every_block_alike_and_drops_every_block_as_often():
    recipe = load_recipe("cp_vit_small_deit3")
    model = build_model(recipe.model, model_args(recipe.model, recipe, 1000, recipe.model_kwargs))
    make_task(model, recipe, CPU)
    scales = [weight for name, weight in model.named_parameters() if name.endswith(".gamma")]
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert len(scales) == len(rates) == 2 * 12
    assert torch.equal(torch.cat(scales), torch.full((2 * 12 * 384,), 1e-4))
    assert set(rates) == {0.05}
