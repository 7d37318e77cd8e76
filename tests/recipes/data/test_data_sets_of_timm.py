"""Training from every kind of data set that timm names, on real digits."""

import io
import json
import logging
import shutil
import tarfile

import numpy as np
import pytest
import torch
from digits_folder import sets
from mistakes import assert_one_line_mistake
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from cp_vision import UserError
from cp_vision.recipes import load_recipe, open_splits
from cp_vision.recipes.cli import main

SETTINGS = ["model=cp_test_vit", "img_size=32", "batch_size=12", "epochs=2", "opt=adamw", "lr=0.002", "workers=1"]


def images():
    """Ninety real digits of three classes, in order: a split, a class, the bytes of a PNG file."""
    digits = load_digits(n_class=3)
    for i in range(90):
        file = io.BytesIO()
        Image.fromarray((digits.images[i] * 15).astype(np.uint8)).resize((32, 32)).save(file, "PNG")
        yield "train" if i < 60 else "validation", int(digits.target[i]), file.getvalue()


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def folder(root):
    for i, (split, label, content) in enumerate(images()):
        (root / split / str(label)).mkdir(parents=True, exist_ok=True)
        (root / split / str(label) / f"{i}.png").write_bytes(content)
    return [f"data_dir={root}"]


def tar(root):
    for split in ("train", "validation"):
        with tarfile.open(root / f"{split}.tar", "w") as file:
            for i, (own, label, content) in enumerate(images()):
                if own == split:
                    add(file, f"{label}/{i}.png", content)
    return [f"data_dir={root}", "train_split=train.tar", "val_split=validation.tar"]


def webdataset(root):
    splits = {}
    for split in ("train", "validation"):
        own = [(label, content) for name, label, content in images() if name == split]
        names = [f"digits-{split}-{part}.tar" for part in range(2)]
        for part, name in enumerate(names):
            with tarfile.open(root / name, "w") as file:
                for i, (label, content) in enumerate(own[part::2]):
                    add(file, f"{part}{i:04}.png", content)
                    add(file, f"{part}{i:04}.cls", str(label).encode())
        lengths = [len(own[part::2]) for part in range(2)]
        splits[split] = {"name": split, "num_samples": len(own), "filenames": names, "shard_lengths": lengths}
    (root / "_info.json").write_text(json.dumps({"splits": splits}))
    return [f"data_dir={root}", "dataset=wds/digits", "num_classes=3"]


def hugging_face(root):
    folder(root / "files")
    return [f"dataset=hfds/{root / 'files'}", f"data_dir={root / 'cache'}"]


def torchvision(root):
    # The format of MNIST's files: a magic number, the shape, then bytes.
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for split, stem in (("train", "train"), ("validation", "t10k")):
        own = [
            (label, np.array(Image.open(io.BytesIO(file)).resize((28, 28))))
            for s, label, file in images()
            if s == split
        ]
        pixels = np.stack([image for _, image in own])
        head = b"".join(n.to_bytes(4, "big") for n in (2051, *pixels.shape))
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = b"".join(n.to_bytes(4, "big") for n in (2049, len(own)))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(head + bytes(label for label, _ in own))
    return [f"data_dir={root}", "dataset=torch/fashion_mnist"]


SLOW = [pytest.param(make, marks=pytest.mark.slow) for make in (webdataset, hugging_face, torchvision)]


@pytest.mark.parametrize("make", [folder, tar, *SLOW])
def test_every_kind_of_data_set_is_trained_on_and_taken_up_again(make, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data").mkdir()
    settings = [*SETTINGS, *make(tmp_path / "data"), "recovery_interval=3"]
    command = ["default", *(part for text in settings for part in ("--set", text)), "--output"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main([*command, str(whole)]) == 0
    assert "top-1 " in capsys.readouterr().out
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["epochs"] == 2
    assert summary["unreadable"] == []
    # From the checkpoint before the last, in the middle of the second epoch.
    shutil.copytree(whole, stopped)
    (stopped / "checkpoint.previous.pt").replace(stopped / "checkpoint.pt")
    (stopped / "summary.json").unlink()
    assert main([*command, str(stopped)]) == 0
    one, other = (load_file(output / "last" / "model.safetensors") for output in (whole, stopped))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (["train_split=training"], ["'wds/digits'", "training"]),
        (["train_split=digits-train-0.tar|30", "num_classes=null"], ["num_classes"]),
        (["val_split=digits-nothing-{0..1}.tar|30"], ["not one image", "digits-nothing"]),
        (["input_key=bmp"], ["no image can be read"]),
        (["target_key=none"], ["Target key(s) ['none'] require a json sidecar"]),
        (["target_key=none", "workers=1"], ["fails: ", "Target key(s) ['none'] require a json sidecar"]),
    ],
)
def test_of_a_mistake_no_other_line_is_told(changes, names, tmp_path, capsys, monkeypatch):
    splits = ["train_split=digits-train-{0..1}.tar|60", "val_split=digits-validation-{0..1}.tar|30"]
    settings = [*SETTINGS, "workers=0", *webdataset(tmp_path), *splits, *changes]
    # timm warns where it is not there.
    (tmp_path / "_info.json").unlink()
    with monkeypatch.context() as patched:
        # Without pytest's handler, as on a command line.
        patched.setattr(logging.root, "handlers", [])
        assert_one_line_mistake(main, ["default", *sets(settings), "--output", str(tmp_path / "run")], capsys, names)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train_split=test"], "train_split 'test'"),
        (["val_split=training"], "val_split 'training'.*'validation'"),
        (["train_split=training", "val_split=train"], "val_split 'train'"),
    ],
)
def test_torchvisions_training_images_are_for_training_alone(splits, message, tmp_path):
    settings = torchvision(tmp_path)
    train_set, test_set = open_splits(load_recipe("default", settings))
    assert (len(train_set), len(test_set)) == (60, 30)
    with pytest.raises(UserError, match=message):
        open_splits(load_recipe("default", [*settings, *splits]))


def test_a_dry_run_takes_the_size_of_the_data_set(tmp_path, capsys):
    torchvision(tmp_path)
    assert main(["fashion_mnist", "--dry-run", "--data-dir", str(tmp_path)]) == 0
    assert "5 epochs of 60 images" in capsys.readouterr().out
