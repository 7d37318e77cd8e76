"""Recipes, data sets and the trainer, on real images."""

import json
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from timm.data import resolve_model_data_config
from timm.data.auto_augment import rand_augment_transform

import cp_vision
from cp_vision import UserError
from cp_vision.recipes import (
    Recipe,
    Training,
    evaluate,
    hold_out,
    load_recipe,
    open_splits,
    score_model,
    single_process,
    train,
)
from cp_vision.recipes.cli import main
from cp_vision.recipes.data.digits import Digits
from cp_vision.recipes.data.open import count_classes, open_split
from cp_vision.recipes.data.training_loader import TrainingLoader, worker_count
from cp_vision.recipes.models import build_model, data_config, load_model, model_args
from cp_vision.recipes.recipe.keys import BUNDLED
from cp_vision.recipes.run.output_folder import check_folder
from cp_vision.recipes.training.dry_run import resident_memory

FOLDER = ["model=cp_test_vit", "img_size=32", "batch_size=16", "epochs=16", "opt=muon", "lr=0.02", "workers=0"]
QUICK = ["model=cp_test_vit2", "model_kwargs={patch_size: 16, depth: 2, init_values: 1.0}", "epochs=3"]


def sets(settings):
    return [part for text in settings for part in ("--set", text)]


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Sixty real digits of three classes as PNG files, in train/ and val/."""
    root = tmp_path_factory.mktemp("folder")
    digits = load_digits(n_class=3)
    for i in range(90):
        split, label = ("train" if i < 60 else "val"), str(digits.target[i])
        (root / split / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15).astype(np.uint8)).resize((32, 32)).save(
            root / split / label / f"{i}.png"
        )
    return root


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.yaml")), ids=lambda p: p.stem)
def test_bundled_recipes_are_valid_and_say_what_they_cost(path):
    recipe = load_recipe(path)
    assert load_recipe(path.stem) == recipe
    header = path.read_text().split("\n\n")[0]
    assert re.search(r"^# Command: .*cp-(train|search)", header, re.M)
    assert re.search(r"[Rr]each|Not run at full length here", header)
    assert "Cost:" in header


def test_yaml_round_trip(tmp_path):
    recipe = load_recipe("digits", ["lr=0.5", "model=cp_resnet18"])
    (tmp_path / "own.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "own.yaml") == recipe
    assert recipe.lr == 0.5


def test_numbers_without_a_point_are_numbers(tmp_path):
    (tmp_path / "own.yaml").write_text("model_kwargs: {init_values: 1e-5}\nlr: 1E-3\nepochs: 1e2\n")
    recipe = load_recipe(tmp_path / "own.yaml", ["drop_path=1e-1"])
    assert (recipe.model_kwargs, recipe.lr, recipe.epochs, recipe.drop_path) == ({"init_values": 1e-5}, 1e-3, 100, 0.1)


def test_a_training_goes_on_from_a_recipe_of_tuples(tmp_path):
    recipe = Recipe(model_kwargs={"pools": ("blocks.1",), "pool_options": {"support_range": (0.1, 0.25)}})
    recipe = recipe.with_values(model_kwargs={**recipe.model_kwargs, "drops": ("blocks.0",)})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert check_folder(tmp_path, recipe) is None
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(("name", "magnitude"), [("a1", 7), ("a2", 7), ("a3", 6)])
def test_resnet_strikes_back_takes_the_increasing_rand_augment(name, magnitude):
    augment = rand_augment_transform(load_recipe(f"cp_resnet50_{name}").aa, {})
    assert {op.magnitude for op in augment.ops} == {magnitude}
    assert {"PosterizeIncreasing", "SharpnessIncreasing"} <= {op.name for op in augment.ops}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown key 'epoch'; did you mean 'epochs'"),
        ("epochs: ten", "epochs: .* got 'ten'"),
        ("epochs: 2.5", "epochs: .* got 2.5"),
        ("epochs: 0", "epochs: .*greater than or equal to 1, got 0"),
        ("lr: .nan", "lr: .* got nan"),
        ("hflip: 2", "hflip: .* got 2"),
        ("crop_pct: 87.5", "crop_pct: .* got 87.5"),
        ("momentum: 50", "momentum: .* got 50"),
        ("opt_eps: -1", "opt_eps: .* got -1"),
        ("layer_decay: 7", "layer_decay: .* got 7"),
        ("bce_target_thresh: -5", "bce_target_thresh: .* got -5"),
        ("decay_milestones: [-4]", "decay_milestones.0: .* got -4"),
        ("sched: cosin", "sched: .*'cosine'.* got 'cosin'"),
        ("opt: adamm", "timm has no optimiser 'adamm'; did you mean 'adam"),
        ("scale: [2, 1]", "scale: needs 0 < low <= high <= 1"),
        ("ratio: [-1, 1]", "ratio: needs 0 < low <= high"),
        ("{mixup: 0.2, batch_size: 33}", "batch_size: mixup and cutmix need an even one, got 33"),
        ("seed: 4294967296", "seed: .* got 4294967296"),
        ("model_kwargs: {num_classes: 5}", "model_kwargs: set num_classes of the recipe in place of num_classes"),
        ("scale: [1]", r"scale: needs 2 numbers, got \[1.0\]"),
        ("mean: [0.5]", r"mean: needs 3 numbers, got \[0.5\]"),
        ("model_kwargs: 3", "model_kwargs: .* got 3"),
        ("{dataset: digits, data_dir: images}", "takes no data_dir, got 'images'"),
        ("- 1", "must be a mapping"),
        ("a: [", "is not YAML"),
        ("model: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("epochs: 2024-13-45", "is not YAML: month must be in 1..12"),
        ("epochs: !!int abc", "is not YAML"),
        ("amp: !!bool abc", "is not YAML"),
        ("epochs: !!timestamp abc", "is not YAML"),
    ],
)
def test_wrong_recipes(text, message, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "blamed"),
    [
        ([], "recipe "),
        (["epochs=3"], "recipe "),
        (["lr=-1"], "--set: lr: "),
        (["scale=[2, 1]"], "--set: scale: "),
        (["mixup=0.2"], "--set: batch_size: "),
        (["epohcs=3"], "--set: unknown key 'epohcs'; did you mean 'epochs'"),
        (["opt_betas=[2, 3]"], "--set: opt_betas.0: "),
    ],
)
def test_a_mistake_is_laid_to_what_holds_it(overrides, blamed, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("{batch_size: 33, mixup: 0.2}" if blamed == "recipe " else "{batch_size: 33}")
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    assert str(caught.value).startswith(blamed)


@pytest.mark.parametrize(("settings", "warns"), [(["epochs=1"], True), (["epochs=1", "warmup_epochs=0"], False)])
def test_a_training_that_only_warms_up_says_so(settings, warns, capsys):
    assert main(["digits", "--dry-run", *sets([*QUICK, "opt=adamw", *settings])]) == 0
    assert ("warmup_epochs 1 takes all of epochs 1" in capsys.readouterr().err) == warns


def test_a_dry_run_without_data_says_that_it_assumes_imagenet(capsys):
    small = sets(["model=cp_test_vit", "img_size=32"])
    for arguments, images in ((["default"], "ImageNet's 1,281,167"), (["digits"], "1,437")):
        assert main([*arguments, *small, "--dry-run"]) == 0
        assert f"10 epochs of {images} images" in capsys.readouterr().out
    assert main(["fashion_mnist", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error == "cp-train: error: data set 'torch/fashion_mnist' needs --data-dir, the folder it lies in\n"


def test_systems_other_than_linux(monkeypatch):
    """macOS knows no affinity and counts the memory in bytes."""
    kilobytes, workers = resident_memory(), worker_count(Recipe(workers=1000))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers <= worker_count(Recipe(workers=1000)) == os.cpu_count()
    assert worker_count(Recipe(workers=1)) == 1
    monkeypatch.setattr(sys, "platform", "darwin")
    assert 2**20 < kilobytes <= resident_memory() * 1024


def test_digits_are_split_by_class_and_never_overlap():
    train_part, test_part = Digits(train=True), Digits(train=False)
    assert (len(train_part), len(test_part)) == (1437, 360)
    assert min(np.bincount(test_part.targets)) >= 34
    whole = {image.tobytes() for image in train_part.images}
    # The bundled set holds some images twice; they are few.
    assert sum(image.tobytes() in whole for image in test_part.images) <= 2
    image, label = test_part[0]
    assert image.mode == "L"
    assert image.size == (8, 8)
    assert 0 <= label < 10


def test_held_out_part():
    recipe = load_recipe("digits")
    whole, _ = open_splits(recipe)
    train_part, held_out = hold_out(whole, 0.2)
    assert len(train_part) + len(held_out) == 1437
    assert set(train_part.indices).isdisjoint(held_out.indices)
    assert hold_out(open_splits(recipe.with_values(seed=7))[0], 0.2)[1].indices == held_out.indices
    train_part.transform = "one"
    assert held_out.transform is None
    for fraction in (0, 1, -0.1, float("nan")):
        with pytest.raises(UserError, match="must be above 0 and below 1"):
            hold_out(whole, fraction)
    with pytest.raises(UserError, match=r"can't hold out 0\.0001"):
        hold_out(whole, 0.0001)


def test_image_folder(image_folder):
    recipe = Recipe(data_dir=str(image_folder))
    train_split, test_split = open_splits(recipe)
    train_part, held_out = hold_out(train_split, 0.25)
    assert (len(train_part), len(held_out), len(test_split)) == (45, 15, 30)
    assert count_classes(train_part, recipe) == 3
    assert test_split[0][0].mode == "RGB"
    assert open_split(recipe.with_values(in_chans=1), "validation")[0][0].mode == "L"
    for count in (2, 1000):
        with pytest.raises(UserError, match=f"num_classes {count} is not the data set's: it has 3 classes"):
            count_classes(train_part, recipe.with_values(num_classes=count))


@pytest.mark.parametrize("dataset", ["", "torch/image_folder"])
def test_classes_have_one_numbering_or_are_refused(dataset, image_folder, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(image_folder, root)
    recipe = Recipe(data_dir=str(root), dataset=dataset)
    assert open_splits(recipe)[1].classes == {"0": 0, "1": 1, "2": 2}
    # Without class 0 the folders of the test split alone would be numbered 1 -> 0, 2 -> 1.
    shutil.rmtree(root / "val" / "0")
    if dataset:
        with pytest.raises(UserError, match="numbers its classes differently"):
            open_splits(recipe)
    else:
        _, test_split = open_splits(recipe)
        assert set(test_split.targets()) == {1, 2}
        assert all(Path(file).parent.name == str(target) for file, target in test_split.dataset.reader.samples)
    (root / "val" / "cat").mkdir()
    Image.new("L", (8, 8)).save(root / "val" / "cat" / "1.png")
    with pytest.raises(UserError, match="split 'validation' has classes that 'train' lacks: cat"):
        open_splits(recipe)


@pytest.mark.parametrize("dataset", ["", "torch/image_folder"])
def test_a_folder_without_splits_is_refused(dataset, image_folder):
    with pytest.raises(UserError, match="has no separate splits; put the images into train/ and validation/"):
        open_splits(Recipe(data_dir=str(image_folder / "train"), dataset=dataset))


def test_a_model_is_scored_with_the_classes_it_was_trained_on(image_folder, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(image_folder, root)
    shutil.rmtree(root / "val" / "0")
    recipe = load_recipe("default", [*FOLDER, f"data_dir={root}"])
    summary = Training(recipe, tmp_path / "model").run()
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    assert score_model(recipe, str(tmp_path / "model" / "last"))["top1"] == summary["top1"] > 50


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_counted_reported_and_skipped_up_to_a_limit(workers, image_folder, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(image_folder, root)
    train_split, test_split = open_splits(Recipe(data_dir=str(root)))
    whole = Path(train_split.dataset.reader.samples[7][0]).read_bytes()
    damage = {
        train_split: [b"no image", whole[: len(whole) // 2], b""],
        test_split: [b"no image", whole[:50]],
    }
    for split, contents in damage.items():
        for (path, _), content in zip(split.dataset.reader.samples, contents, strict=False):
            Path(path).write_bytes(content)
    with pytest.raises(OSError, match=r"can't read image 0/\d+\.png"):
        test_split[0]
    settings = [*FOLDER, "epochs=2", f"workers={workers}"]
    arguments = ["default", *sets(settings), "--data-dir", str(root), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--max-unreadable", "1"]) in (1, 2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(
        r"unreadable images?: 0/\d+\.png.*more than the 1 that can be skipped \(cp-train --max-unreadable\)", error
    ), error
    assert main([*arguments, "--max-unreadable", "3"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:2]] == [
        "skipped 3 unreadable images",
        "skipped 2 unreadable images",
    ]
    # The scores are those of the readable images.
    shutil.copytree(root, tmp_path / "clean")
    for path, _ in test_split.dataset.reader.samples[:2]:
        (tmp_path / "clean" / "val" / Path(path).relative_to(root / "val")).unlink()
    scored = [
        score_model(load_recipe("default", [*settings, f"data_dir={folder}"]), str(tmp_path / "out" / "last"))
        for folder in (root, tmp_path / "clean")
    ]
    assert [scores.pop("unreadable")[:20] for scores in scored] == ["2 unreadable images:", ""]
    assert scored[0] == pytest.approx(scored[1])
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"")
    assert main([*arguments[:-1], str(tmp_path / "none"), "--max-unreadable", "1000"]) == 1
    assert "60 unreadable images: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def half_way(image_folder, tmp_path_factory):
    """A data set of whose splits an image can't be read, and the folder of a training after one of two epochs."""
    root = tmp_path_factory.mktemp("half")
    shutil.copytree(image_folder, root / "data")
    for split in open_splits(Recipe(data_dir=str(root / "data"))):
        Path(split.dataset.reader.samples[0][0]).write_bytes(b"no image")
    Training(half_way_recipe(root / "data"), root / "whole").run()
    shutil.copytree(root / "whole", root / "stopped")
    (root / "stopped" / "checkpoint.previous.pt").replace(root / "stopped" / "checkpoint.pt")
    (root / "stopped" / "summary.json").unlink()
    return root


def half_way_recipe(data):
    # All sixty images are seen in each epoch.
    return load_recipe("default", [*FOLDER, "epochs=2", "batch_size=15", f"data_dir={data}"])


def replaced(bad, good):
    bad.unlink()
    shutil.copy(good, bad.with_name("zzz.png"))


@pytest.mark.parametrize(
    ("split", "change", "result"),
    [
        ("train", lambda bad, good: None, 1),
        ("train", lambda bad, good: shutil.copy(good, bad), 0),
        # The other images have other numbers now.
        ("train", replaced, 0),
        ("val", replaced, 0),
        ("train", lambda bad, good: bad.unlink(), "training images 60, now it is 59; choose another --output"),
        ("val", lambda bad, good: bad.unlink(), "validation images 30, now it is 29; choose another --output"),
    ],
)
def test_what_became_of_unreadable_images_is_seen_when_a_training_goes_on(split, change, result, half_way, tmp_path):
    for name in ("data", "stopped"):
        shutil.copytree(half_way / name, tmp_path / name)
    (bad,) = (path for path in (tmp_path / "data" / split).rglob("*.png") if path.read_bytes() == b"no image")
    change(bad, next(path for path in bad.parent.iterdir() if path != bad))
    recipe = half_way_recipe(tmp_path / "data")
    if isinstance(result, str):
        with pytest.raises(UserError, match=result):
            Training(recipe, tmp_path / "stopped")
        return
    summary = Training(recipe, tmp_path / "stopped").run()
    whole = json.loads((half_way / "whole" / "summary.json").read_text())
    assert len(whole["unreadable"]) == 2
    assert len(summary["unreadable"]) == 1 + result
    if result:
        one, other = (
            load_file(folder / "last" / "model.safetensors") for folder in (half_way / "whole", tmp_path / "stopped")
        )
        assert all(torch.equal(value, other[key]) for key, value in one.items())
        assert summary == whole


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [
        ({"0": 0, "1": 0, "2": 1}, {"0": "0, 1", "1": "2"}),
        ({"0": 0, "1": 1, "2": 3}, {"0": "0", "1": "1", "3": "2"}),
    ],
)
def test_a_class_map_may_merge_folders_and_leave_gaps(numbers, labels, image_folder, tmp_path):
    (tmp_path / "map.pkl").write_bytes(pickle.dumps(numbers))
    recipe = load_recipe("default", [*FOLDER, f"data_dir={image_folder}", f"class_map={tmp_path}/map.pkl"])
    summary = Training(recipe, tmp_path / "model").run()
    last = tmp_path / "model" / "last"
    model = load_model(last)
    assert model.num_classes == max(numbers.values()) + 1
    assert model.pretrained_cfg["label_names"] == labels
    for what in (last, last / "model.safetensors"):
        assert score_model(recipe, str(what))["top1"] == summary["top1"]
    # Whatever the recipe says by then, it is scored by the numbers that it learned.
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"0": 1, "1": 2, "2": 0}))
    for class_map in (None, str(tmp_path / "other.pkl")):
        assert score_model(recipe.with_values(class_map=class_map), str(last))["top1"] == summary["top1"] > 50
    with pytest.raises(UserError, match="num_classes 7 is not the data set's"):
        score_model(recipe.with_values(num_classes=7), str(last))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"0": "zero", "1": "one", "2": "two"}), "class indices must be whole numbers from 0"),
        (pickle.dumps({"0": -1, "1": 0, "2": 1}), "class indices must be whole numbers from 0"),
        (pickle.dumps(Path), "not permitted in a class map"),
        (b"", "Ran out of input"),
    ],
)
def test_wrong_class_maps(content, message, image_folder, tmp_path):
    (tmp_path / "map.pkl").write_bytes(content)
    recipe = load_recipe("default", [*FOLDER, f"data_dir={image_folder}", f"class_map={tmp_path}/map.pkl"])
    with pytest.raises(UserError, match=message):
        Training(recipe, tmp_path / "model")


def test_weights_are_scored_where_a_class_is_missing(image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "val" / "1")
    recipe = load_recipe("default", [*FOLDER, f"data_dir={tmp_path}/data"])
    summary = Training(recipe, tmp_path / "model").run()
    for what in ("last", "last/model.safetensors"):
        assert score_model(recipe, str(tmp_path / "model" / what))["top1"] == summary["top1"] > 50


def test_an_epoch_whose_score_is_not_finite_is_not_the_best(tmp_path, monkeypatch):
    losses = iter([float("nan"), 2.0, 1.0])

    def scored(*arguments):
        return {**evaluate(*arguments), "loss": next(losses)}

    monkeypatch.setattr("cp_vision.recipes.run.training_run.evaluate", scored)
    summary = Training(load_recipe("digits", [*QUICK, "eval_metric=loss"]), tmp_path / "model").run()
    assert summary["best"]["epoch"] == 3


def test_every_kind_of_image_is_read_and_grey_ones_of_16_bits_keep_their_greys(tmp_path):
    digit = (load_digits().images[0] * 15).astype(np.uint8)
    for split in ("train", "val"):
        (tmp_path / split / "zero").mkdir(parents=True)
        for kind in ("png", "jpg", "webp", "bmp", "tif"):
            Image.fromarray(digit).save(tmp_path / split / "zero" / f"8.{kind}", quality=100, lossless=True)
        Image.fromarray(digit.astype(np.uint16) * 257).save(tmp_path / split / "zero" / "16.png")
    for channels in (1, 3):
        for images in open_splits(load_recipe("default", [f"data_dir={tmp_path}", f"in_chans={channels}"])):
            assert len(images) == 6
            for image, _ in images:
                assert np.abs(np.asarray(image.convert("L"), int) - digit).max() <= 12  # JPEG loses a little


def test_another_model_leaves_the_recipes_model_arguments_out():
    assert load_recipe("digits", ["model=cp_resnet18"]).model_kwargs == {}
    assert load_recipe("digits", ["model=cp_resnet18", "model_kwargs={layers: [1, 1, 1, 1]}"]).model_kwargs
    assert load_recipe("digits", ["model=cp_test_vit2"]).model_kwargs == load_recipe("digits").model_kwargs


def test_grey_images_and_three_channels(tmp_path):
    quick = [*QUICK, "epochs=1", "in_chans=1"]
    assert main(["digits", *sets(quick), "--output", str(tmp_path / "grey")]) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'grey' / 'last'}", pretrained=True)
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 10)
    assert len(resolve_model_data_config(model)["mean"]) == 1


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (["model=cp_test_resnet", "in_chans=1"], (1, 160, 160)),
        (["model=cp_test_vit", "in_chans=1", "model_kwargs={img_size: 64}"], (1, 64, 64)),
        (["model=cp_test_vit2", "model_kwargs={patch_size: 8, img_size: 32}"], (3, 32, 32)),
        (["model=cp_test_resnet", "img_size=48"], (3, 48, 48)),
    ],
)
def test_images_are_of_the_size_that_the_model_was_built_for(settings, size):
    settings = ["img_size=null", *settings]
    recipe = load_recipe("digits", settings)
    model = build_model(recipe.model, model_args(recipe.model, recipe, 10, recipe.model_kwargs))
    assert data_config(model, recipe)["input_size"] == size
    assert main(["digits", *sets([*settings, "amp=false"]), "--dry-run"]) == 0


def test_an_image_folder_is_trained_on(image_folder, tmp_path, capsys):
    arguments = ["default", "--data-dir", str(image_folder), *sets([*FOLDER, "workers=1"])]
    assert main([*arguments, "--output", str(tmp_path / "model")]) == 0
    assert json.loads((tmp_path / "model" / "summary.json").read_text())["top1"] > 50
    capsys.readouterr()
    assert main([*arguments, "--eval", str(tmp_path / "model" / "best")]) == 0
    assert main([*arguments, "--eval", str(tmp_path / "model")]) == 2
    assert "is a training's folder; score " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda p: None, ["--data-dir", "{}/absent"], "doesn't exist"),
        (lambda p: (p / "empty").mkdir(), ["--data-dir", "{}/empty"], "is empty"),
        (lambda p: (p / "odd" / "cat").mkdir(parents=True), ["--data-dir", "{}/odd"], "(?i)found 0 images"),
        (lambda p: None, [], "needs --data-dir"),
        (lambda p: None, ["--set", "dataset=torch/mnist", "--data-dir", "{}"], "data set 'torch/mnist'|is empty"),
        (lambda p: (p / "x").mkdir(), ["--set", "dataset=torch/nothing", "--data-dir", "{}"], "torch/nothing"),
        (lambda p: None, ["--set", "dataset=digits", "--set", "batch_size=5000"], "more than the 1437 training"),
        (lambda p: None, ["--set", "dataset=digits", "--set", "model=resnet_18"], "did you mean 'resnet18'"),
        (lambda p: None, ["--set", "dataset=digits", "--set", "model_kwargs={depht: 2}"], "depht"),
        (lambda p: None, ["--set", "epochs"], "must be key=value"),
        (lambda p: None, ["--set", "epochs=2024-13-45"], "--set 'epochs=2024-13-45': the value is not YAML"),
        (lambda p: None, ["--set", "epochs=!!int abc"], "--set 'epochs=!!int abc': the value is not YAML"),
        (lambda p: None, ["--dry-run", "--set", "dataset=torch/cifar10"], "'torch/cifar10' needs --data-dir"),
        *[
            (lambda p: None, ["--set", "dataset=digits", *sets(["model=cp_test_vit", "workers=0", text])], message)
            for text, message in [
                ("aa=foo", "can't make the loader: AssertionError"),
                ("opt_betas=[2, 3]", "opt_betas.0: .* got 2"),
                ("std=[0, 0, 0]", "std.0: .* got 0"),
                ("mean=[0, 0, 1e300]", "the loss is (nan|inf)"),
                ("model_kwargs={norm_layer: nope}", "can't build cp_test_vit"),
                ("class_map=nope.txt", "takes no class_map"),
                ("opt=fusedsgd", "a first training step fails"),
                ("opt_eps=-1", "opt_eps: .* got -1"),
                ("img_size=8", "a first training step fails|can't build"),
                ("train_split=validation", "train_split and val_split are both 'validation'"),
                ("initial_checkpoint=nope.pth", "checkpoint 'nope.pth' is no file"),
                ("kd_model_name=nope", "unknown base model 'nope'"),
                ("torchcompile=nope", "torchcompile 'nope'|a first training step fails"),
                ("grad_accum_steps=50", "batch_size 128 times grad_accum_steps 50 is more than the 1437 training"),
            ]
        ],
        (
            lambda p: (p / "file").touch(),
            ["--set", "dataset=digits", *sets(QUICK), "--output", "{}/file/x"],
            "can't be used: Not a directory",
        ),
        (lambda p: None, ["--eval", "{}/absent", "--set", "dataset=digits"], "unknown base model '.*/absent'"),
        (lambda p: None, ["--eval", "local-dir:{}/absent", "--set", "dataset=digits"], "is no model folder"),
        (lambda p: None, ["--eval", "{}", "--set", "dataset=digits"], "is no model folder"),
        (lambda p: None, ["--dry-run", "--set", "model=resnet_18"], "did you mean 'resnet18'"),
        (lambda p: None, ["--max-unreadable", "-1"], "--max-unreadable -1 must be 0 or more"),
    ],
)
def test_mistakes_end_in_one_line(make, arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code = main(["default", "--output", str(tmp_path / "out"), *(a.replace("{}", str(tmp_path)) for a in arguments)])
    error = capsys.readouterr().err.rpartition("\r")[2].strip()
    assert code == 2
    assert "\n" not in error
    assert error.startswith("cp-train: error: ")
    assert re.search(message, error), error
    assert sorted(tmp_path.rglob("*")) == before


def test_training_is_reproducible():
    """Also after another one in the same process, and with another number of workers."""
    results = []
    for workers in (0, 1):
        recipe = load_recipe("digits", [*QUICK, f"workers={workers}"])
        torch.manual_seed(recipe.seed)
        model = build_model(recipe.model, model_args(recipe.model, recipe, 10, recipe.model_kwargs))
        train_part, _ = hold_out(open_splits(recipe)[0], 0.2)
        loader = TrainingLoader(train_part, recipe, data_config(model, recipe), 10, single_process())
        losses = []
        results.append(
            (train(model, recipe, loader, single_process(), lambda *told, to=losses: to.append(told[:3])), losses)
        )
    (one, losses), (other, others) = results
    assert losses == others
    assert [told[:2] for told in losses] == [(1, 3), (2, 3), (3, 3)]
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


def test_the_summary_tells_the_models_macs_and_the_recipe_trains_it_again(tmp_path):
    output = tmp_path / "model"
    assert main(["digits", *sets([*QUICK, "epochs=1"]), "--output", str(output)]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["macs"] == cp_vision.count_macs(timm.create_model(f"local-dir:{output / 'last'}", pretrained=True))
    assert load_recipe(output / "recipe.yaml") == load_recipe("digits", [*QUICK, "epochs=1"])


def test_a_model_of_other_classes_is_not_scored(tmp_path, image_folder, capsys):
    output = tmp_path / "model"
    assert main(["digits", *sets([*QUICK, "epochs=1"]), "--output", str(output)]) == 0
    (tmp_path / "val" / "cat").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "val" / "cat" / "1.png")
    output = output / "last"
    assert main(["default", "--data-dir", str(tmp_path), "--eval", str(output)]) == 2
    assert "split 'validation' has classes that the model lacks: cat" in capsys.readouterr().err
    (output / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="can't load"):
        load_model(output)
