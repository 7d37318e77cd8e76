"""cp-train: its mistakes, and what it lists."""

import subprocess
import sys

import pytest
from digits_folder import SMALL, sets
from mistakes import assert_one_line_mistake

from cp_vision.recipes.cli import main
from cp_vision.recipes.recipe.keys import Recipe, bundled_recipes

DIGITS = ["--set", "dataset=digits"]
SMALLEST = sets(["dataset=digits", "model=cp_test_vit", "workers=0"])


def nothing(path):
    """There is no such folder."""


@pytest.mark.parametrize(
    ("make", "arguments", "names"),
    [
        (nothing, ["--data-dir", "{}/absent"], ["{}/absent"]),
        (lambda p: (p / "empty").mkdir(), ["--data-dir", "{}/empty"], ["{}/empty"]),
        (lambda p: (p / "odd" / "cat").mkdir(parents=True), ["--data-dir", "{}/odd"], ["{}/odd", "'train'"]),
        (nothing, [], ["--data-dir"]),
        (lambda p: (p / "x").touch(), ["--set", "dataset=torch/mnist", "--data-dir", "{}"], ["'torch/mnist'"]),
        (lambda p: (p / "x").mkdir(), ["--set", "dataset=torch/nothing", "--data-dir", "{}"], ["'torch/nothing'"]),
        (nothing, [*DIGITS, "--set", "batch_size=5000"], ["batch_size 5000", "1437"]),
        (nothing, [*DIGITS, "--set", "model=resnet_18"], ["'resnet_18'", "'resnet18'"]),
        (nothing, [*DIGITS, "--set", "model_kwargs={depht: 2}"], ["depht"]),
        (nothing, ["--set", "epochs"], ["--set 'epochs'", "epochs=10"]),
        (nothing, ["--set", "epochs=2024-13-45"], ["--set 'epochs=2024-13-45'"]),
        (nothing, ["--set", "epochs=!!int abc"], ["--set 'epochs=!!int abc'"]),
        (nothing, ["--dry-run", "--set", "dataset=torch/cifar10"], ["'torch/cifar10'", "--data-dir"]),
        *[
            (nothing, [*SMALLEST, "--set", text], names)
            for text, names in [
                ("lr=true", ["--set", "lr", "True"]),
                ("batch_size=yes", ["--set", "batch_size", "True"]),
                ("model_kwargs={depht=2}", ["--set", "model_kwargs", "'depht=2'"]),
                ("model_kwargs={depht: null}", ["--set", "model_kwargs", "'depht'"]),
                ("aa=foo", ["loader", "AssertionError"]),
                ("opt_betas=[2, 3]", ["opt_betas", "2"]),
                ("std=[0, 0, 0]", ["std", "0"]),
                ("mean=[0, 0, 1e300]", ["loss", "mean"]),
                ("model_kwargs={norm_layer: nope}", ["cp_test_vit", "nope"]),
                ("class_map=nope.txt", ["class_map", "'nope.txt'"]),
                ("opt=fusedsgd", ["first training step"]),
                ("opt_eps=-1", ["opt_eps", "-1"]),
                ("img_size=8", ["first training step"]),
                ("train_split=validation", ["train_split", "val_split", "'validation'"]),
                ("initial_checkpoint=nope.pth", ["'nope.pth'", ".safetensors"]),
                ("kd_model_name=nope", ["'nope'"]),
                ("torchcompile=nope", ["torchcompile 'nope'"]),
                ("torchcompile_mode=max-autotune", ["torchcompile_mode 'max-autotune'", "torchcompile: inductor"]),
                ("torchcompile_mode=fast", ["torchcompile_mode", "'fast'", "max-autotune"]),
                ("drop_path_uniform=true", ["drop_path_uniform", "drop_path: 0.05"]),
                ("grad_accum_steps=50", ["grad_accum_steps 50", "1437"]),
            ]
        ],
        (
            lambda p: (p / "file").touch(),
            [*SMALLEST, *sets(SMALL), "--output", "{}/file/x"],
            ["{}/file/x"],
        ),
        (nothing, ["--eval", "{}/absent", *DIGITS], ["{}/absent"]),
        (nothing, ["--eval", "local-dir:{}/absent", *DIGITS], ["{}/absent", "config.json"]),
        (nothing, ["--eval", "{}", *DIGITS], ["{}", "config.json"]),
        (nothing, ["--dry-run", "--set", "model=resnet_18"], ["'resnet_18'", "'resnet18'"]),
        (nothing, ["--max-unreadable", "-1"], ["--max-unreadable -1"]),
    ],
)
def test_mistakes_end_in_one_line(make, arguments, names, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    filled = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    command = ["default", "--output", str(tmp_path / "out"), *filled]
    line = assert_one_line_mistake(main, command, capsys, [name.replace("{}", str(tmp_path)) for name in names])
    assert line.startswith("cp-train: error: ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("recipe", "names"),
    [("digit", ["'digits'"]), ("digits.yaml", ["'digits'"]), ("DIGITS", ["'digits'"]), ("zzz", ["'zzz'", "supernet"])],
)
def test_a_recipe_that_is_not_there_names_those_that_are(recipe, names, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line_mistake(main, [recipe], capsys, names)


def test_recipes_and_keys_are_listed(capsys):
    for option, expected in (
        ("--recipes", [path.stem for path in bundled_recipes()]),
        ("--keys", list(Recipe.model_fields)),
    ):
        with pytest.raises(SystemExit) as end:
            main([option])
        assert end.value.code == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == expected


def test_help_and_mistakes_answer_without_torch():
    code = """
import sys
from cp_vision.recipes.cli import main
for arguments in (["--help"], ["--recipes"], ["--keys"], ["--nope"], ["digit"], ["digits", "--set", "lr=true"]):
    try:
        main(arguments)
    except SystemExit:
        pass
slow = {"torch", "timm", "torchvision", "optuna", "sklearn", "numpy"} & set(sys.modules)
assert not slow, slow
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(("settings", "warns"), [(["epochs=1"], True), (["epochs=1", "warmup_epochs=0"], False)])
def test_a_training_that_only_warms_up_says_so(settings, warns, capsys):
    assert main(["digits", "--dry-run", *sets([*SMALL, "opt=adamw", *settings])]) == 0
    assert ("warmup_epochs 1" in capsys.readouterr().err) == warns


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["model=cp_test_resnet"], ["'init_values': 1.0", "cp_test_vit2", "cp_test_resnet"]),
        (["model=cp_test_resnet", "model_kwargs={}"], []),
        (["model=cp_test_vit2"], []),
        ([], []),
    ],
)
def test_what_is_left_out_for_another_model_is_told(settings, told, capsys):
    assert main(["digits", "--dry-run", *sets([*settings, "opt=adamw", "img_size=32"])]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(told)
    assert all(word in lines[0] for word in told)
