"""Mistakes on the command line of ``cp-search`` and in a ``SearchConfig``: each is one line and writes nothing."""

import subprocess
import sys

import pytest
from mistakes import assert_one_line_mistake

from cp_vision import UserError
from cp_vision.search import SearchConfig
from cp_vision.search.cli.main import main

# Arguments, and what the line names: the bad value and its option, or what is near or allowed. Those of the config.
LIGHT = [
    ([], ["base"]),
    ([""], ["base", "''"]),
    (["test_vit", "resnet18"], ["resnet18"]),
    (["test_vit", "--colour"], ["--colour"]),
    (["test_vit", "--budget", "70%"], ["budget", "'70%'"]),
    (["test_vit", "--budget", "0.7"], ["budget", "'0.7'", "0.7x"]),
    (["test_vit", "--budget", "0.7x,"], ["budget", "'0.7x,'", "macs"]),
    (["test_vit", "--budget", "latency=5"], ["budget", "'5'", "latency", "ms"]),
    (["test_vit", "--budget", "flops=1x"], ["budget", "'flops'", "macs", "params", "latency"]),
    (["test_vit", "--keep-accuracy", "-1"], ["--keep-accuracy", "-1"]),
    (["test_vit", "--keep-accuracy", "nan"], ["--keep-accuracy", "nan"]),
    (["test_vit", "--space", "nowhere.yaml"], ["space", "'nowhere.yaml'"]),
    (["test_vit", "--pool-kwargs", "support_range"], ["--pool-kwargs", "'support_range'"]),
    (["test_vit", "--pool-kwargs", "mode=gated", "resnet18"], ["--pool-kwargs", "'resnet18'"]),
    (["test_vit", "--model-kwargs", "pools=1"], ["model_kwargs", "pools", "--space"]),
    (["test_vit", "--set", "seed=3"], ["--set", "'seed=3'", "--seed"]),
    (["test_vit", "--set", "model=resnet18"], ["--set", "'model=resnet18'"]),
    (["test_vit", "--val-fraction", "1"], ["--val-fraction", "1.0"]),
    (["test_vit", "--trials", "0"], ["--trials", "0"]),
    (["test_vit", "--trials", "many"], ["--trials", "'many'"]),
    (["test_vit", "--trials", "5.5"], ["--trials", "'5.5'"]),
    (["test_vit", "--evaluator", "oracle"], ["--evaluator", "'oracle'", "train", "supernet", "sensitivity"]),
    (["test_vit", "--objective", "both"], ["--objective", "'both'", "pareto", "single"]),
    (["test_vit", "--early-stop", "halve"], ["--early-stop", "'halve'", "did you mean 'halving'"]),
    (["test_vit", "--trial-seconds", "0"], ["--trial-seconds", "0"]),
    (["test_vit", "--supernet-epochs", "2"], ["--supernet-epochs", "2", "supernet", "train"]),
    (["test_vit", "--fit-images", "64"], ["--fit-images", "64", "fit", "train"]),
    (["test_vit", "--finalists", "0"], ["--finalists", "0"]),
    (["test_vit", "--budget", "params=0.7x,params=0.8x"], ["budget", "'params=0.7x,params=0.8x'", "two"]),
    (["test_vit", "--evaluator", "supernet", "--finalists", "0"], ["--finalists", "0"]),
    (["test_vit", "--seed", "4294967296"], ["--seed", "4294967296"]),
    (["test_vit", "--seed", "-1"], ["--seed", "-1"]),
    (["test_vit", "--study", "pets"], ["--study", "'pets'", "--storage"]),
    (["test_vit", "--keep-checkpoints", "-1"], ["--keep-checkpoints", "-1"]),
    (["test_vit", "--executor", "spark"], ["--executor", "'spark'", "local", "ray"]),
    (["test_vit", "--parallel", "2"], ["--parallel", "2", "ray"]),
    (["test_vit", "--address", "head:6379"], ["--address", "'head:6379'", "ray"]),
    (["test_vit", "--cpus", "4"], ["--cpus", "4", "ray"]),
    (["test_vit", "--gpus", "1"], ["--gpus", "1", "ray"]),
    (["test_vit", "--resources", "tpu=1"], ["--resources", "tpu", "ray"]),
    (["test_vit", "--cpus", "inf"], ["--cpus", "inf"]),
    (["test_vit", "--executor", "ray", "--parallel", "0"], ["--parallel", "0"]),
    (["test_vit", "--executor", "ray", "--gpus", "-1"], ["--gpus", "-1"]),
    (["test_vit", "--executor", "ray", "--resources", "tpu=0"], ["--resources", "tpu", "0"]),
    (["test_vit", "--executor", "ray", "--resources", "tpu=two"], ["--resources", "tpu", "'two'"]),
    (["test_vit", "--executor", "ray", "--resources", "GPU=1"], ["--resources", "'GPU'", "--gpus"]),
    (["test_vit", "--config", "nowhere.yaml"], ["config", "'nowhere.yaml'"]),
    (["status"], ["folder"]),
    (["export", "nowhere", "first"], ["number", "'first'"]),
]
# Those that base, recipe, data or space tell.
HEAVY = [
    (["resume", "nowhere"], ["'nowhere'"]),
    (["resnet_18"], ["'resnet_18'", "did you mean 'resnet18'"]),
    (["vgg11"], ["VGG"]),
    (["cp_test_vit"], ["cp_test_vit", "'test_vit'"]),
    (["test_vit", "--budget", "0.7x,params=0.01x"], ["budget", "parameters", "test_vit"]),
    (["test_vit", "--budget", "0.01x"], ["budget", "MACs", "test_vit", "0."]),
    (["test_resnet", "--budget", "0.7x"], ["budget", "test_resnet", "1.000x"]),
    (["test_vit", "--trials", "1"], ["trials 1"]),
    (["test_vit", "--sampler", "nsga"], ["'nsga'", "tpe", "did you mean 'nsgaii'"]),
    (["test_vit", "--evaluator", "sensitivity"], ["sensitivity", "--set pretrained=true"]),
    (["test_vit", "--storage", "sqlite:////nowhere/x.db"], ["storage", "'/nowhere'"]),
    (["test_vit", "--storage", "mongo://x"], ["storage", "'mongo://x'"]),
    (["test_vit", "--storage", "postgresql://me:secret@nowhere/x"], ["storage", "'postgresql://me:***@nowhere/x'"]),
    (["test_vit", "--pool-kwargs", "mode=soft"], ["mode", "'soft'", "gated"]),
    (["resnet18", "--pool-kwargs", "mode=pre_attn"], ["pre_attn", "attention"]),
    (["test_vit", "--pool-kwargs", "channels=3"], ["'channels'", "mode", "support_range"]),
    (["test_vit", "--pool-kwargs", "names=3"], ["'names'"]),
    (["test_vit", "--pool-kwargs", "suport_range=3"], ["'suport_range'", "did you mean 'support_range'"]),
    (["test_vit", "--pool-kwargs", "hidden=2.5"], ["hidden", "2.5"]),
    (["test_vit", "--pool-kwargs", "support_range=1e400"], ["support_range", "inf"]),
    (["test_vit", "--model-kwargs", "patch_sise=4"], ["patch_sise"]),
    (["test_vit", "--model-kwargs", "patch_size=64"], ["test_vit", "VisionTransformer"]),
    (["test_vit", "--model-kwargs", "num_classes=5"], ["num_classes", "recipe"]),
    (["test_vit", "--model-kwargs", "pretrained=True"], ["pretrained", "recipe"]),
    (["test_vit", "--model-kwargs", "qkv_bias={1}"], ["{1}", "JSON"]),
    (["test_vit", "--model-kwargs", "a={[]:1}"], ["test_vit", "'{[]:1}'"]),
    (["test_vit", "--model-kwargs", "patch_size=0"], ["test_vit"]),
    (["test_resnet", "--model-kwargs", "block=nope"], ["test_resnet"]),
    (["test_vit", "--model-kwargs", "depth=0"], ["test_vit", "blocks"]),
    (["test_vit", "--set", "val_split=train"], ["train_split", "val_split", "'train'"]),
    (["test_vit", "--set", "log_wandb=true"], ["log_wandb", "--set log_wandb=false"]),
    (["test_vit", "--set", "epoch=3"], ["--set", "epoch ", "did you mean 'epochs'"]),
    (["test_vit", "--set", "epochs=few"], ["--set", "epochs", "'few'"]),
    (["test_vit", "--dataset", "foo"], ["foo", "--data-dir"]),
    (["test_vit", "--dataset", "torch/mnist"], ["mnist", "--data-dir"]),
    (["test_vit", "--recipe", "digits", "--data-dir", "{}"], ["digits", "data_dir", "{}"]),
    (["test_vit", "--recipe", "nowhere.yaml"], ["'nowhere.yaml'", "cp_resnet50_a1"]),
    (["test_vit", "--data-dir", "{}/absent"], ["{}/absent"]),
    (["test_vit", "--data-dir", "{}"], ["{}"]),
]
# Those that a first update tells, after the plan was shown.
LATE = [
    (["test_vit", "--val-fraction", "0.99"], ["batch_size 64", "14"]),
    (["test_vit", "--set", "batch_size=5000"], ["batch_size 5000"]),
    (["test_vit", "--set", "aa=foo"], ["foo"]),
]


def in_folder(tmp_path, monkeypatch, arguments, names):
    """The table's words in a folder that holds no more than an empty folder for data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    output = [] if arguments[:1] in (["status"], ["export"], ["resume"]) else ["--output", str(tmp_path / "out" / "x")]
    return [
        [word.replace("{}", str(tmp_path / "data")) if "{}" in word[:3] else word for word in words]
        for words in ([*arguments, *output], names)
    ]


@pytest.mark.parametrize(("arguments", "names"), LIGHT + HEAVY)
def test_mistakes_end_in_one_line_and_write_nothing(arguments, names, tmp_path, capsys, monkeypatch):
    arguments, names = in_folder(tmp_path, monkeypatch, arguments, names)
    line = assert_one_line_mistake(main, arguments, capsys, names)
    assert line.startswith("cp-search")
    assert [path.name for path in tmp_path.rglob("*")] == ["data"]


@pytest.mark.parametrize(("arguments", "names"), LATE)
def test_what_the_first_update_tells_comes_after_the_plan(arguments, names, tmp_path, capsys, monkeypatch):
    arguments, names = in_folder(tmp_path, monkeypatch, arguments, names)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert all(name in captured.err for name in names), captured.err
    assert "blocks.0" in captured.out
    assert [path.name for path in tmp_path.rglob("*")] == ["data"]


def test_help_and_mistakes_of_the_config_need_nothing_heavy():
    cases = [["--help"], ["status", "--help"], *(arguments for arguments, _ in LIGHT)]
    code = f"""
import contextlib, io, sys
from cp_vision.search.cli.main import main
quiet = io.StringIO()
for arguments in {cases!r}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        main(arguments)
    found = {{"torch", "torchvision", "timm", "optuna", "ray", "numpy"}} & set(sys.modules)
    assert not found, (arguments, found)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"budget": 0.7}, ["budget", "0.7"]),
        ({"trials": "5"}, ["trials", "'5'"]),
        ({"trials": 5.5}, ["trials", "5.5"]),
        ({"trials": True}, ["trials", "True"]),
        ({"val_fraction": "0.2"}, ["val_fraction", "'0.2'"]),
        ({"cpus": True, "executor": "ray"}, ["cpus", "True"]),
        ({"compiled": 1}, ["compiled", "1"]),
        ({"evaluator": None}, ["evaluator", "None"]),
        ({"sampler": 3}, ["sampler", "3"]),
        ({"overrides": "epochs=1"}, ["overrides", "'epochs=1'"]),
        ({"overrides": ("epochs=1", 2)}, ["overrides", "2"]),
        ({"model_kwargs": [1]}, ["model_kwargs", "[1]"]),
        ({"pool_options": None}, ["pool_options", "None"]),
        ({"output": ""}, ["output", "''"]),
        ({"data_dir": 5}, ["data_dir", "5"]),
        ({"space": 5}, ["space", "5"]),
        ({"space": {"pool": "blocks.1"}}, ["space", "pool", "did you mean 'pools'"]),
        ({"trails": 5}, ["trails", "did you mean 'trials'"]),
        ({"base": 5}, ["base", "5"]),
    ],
)
def test_values_of_another_type_are_named(values, names):
    with pytest.raises(UserError) as caught:
        SearchConfig(**{"base": "test_vit", **values})
    assert all(name in str(caught.value) for name in names), caught.value
    assert "\n" not in str(caught.value)
