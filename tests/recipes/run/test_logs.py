"""What a training leaves and tells."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from digits_folder import SMALL, sets

from cp_vision.recipes import Training, evaluate, load_recipe
from cp_vision.recipes.cli import main


def test_a_training_leaves_models_logs_and_a_summary(trained, capsys):
    folder, command = trained
    names = {path.name for path in folder.iterdir()}
    files = {"log.csv", "curves.svg", "recipe.yaml", "summary.json", "checkpoint.pt", "checkpoint.previous.pt"}
    assert names == files | {"best", "last", "ema", "tensorboard", ".lock"}
    summary = json.loads((folder / "summary.json").read_text())
    rows = (folder / "log.csv").read_text().splitlines()
    assert rows[0] == "epoch,train_loss,loss,top1,top5,lr,skipped"
    assert len(rows) == 4
    assert float(rows[-1].split(",")[3]) == summary["top1"] <= summary["best"]["top1"]
    capsys.readouterr()
    for name in ("best", "ema"):
        model = timm.create_model(f"local-dir:{folder / name}", pretrained=True)
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
        assert main([*command[:-2], "--eval", str(folder / name)]) == 0
        expected = summary["best"]["top1"] if name == "best" else summary["top1"]
        assert f"top-1 {expected:.2f} %" in capsys.readouterr().out
    # Weights alone, of the recipe's model.
    assert main([*command[:-2], "--eval", str(folder / "ema" / "model.safetensors")]) == 0
    assert f"top-1 {summary['top1']:.2f} %" in capsys.readouterr().out
    # The same command again has nothing left to do.
    before = (folder / "last" / "model.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert f"top-1 {summary['top1']:.2f} %" in capsys.readouterr().out
    assert (folder / "last" / "model.safetensors").stat().st_mtime_ns == before
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("validation/top1")] == [22, 44, 66]
    assert [event.step for event in events.Scalars("train/loss")] == [50]


@pytest.mark.parametrize("averaged", [True, False])
def test_the_model_to_load_has_the_scores_that_are_told(averaged, trained, tmp_path, capsys):
    plain = ["digits", *sets([*SMALL, "epochs=1", "batch_size=512"]), "--output", str(tmp_path / "out")]
    command = trained[1] if averaged else plain
    capsys.readouterr()
    assert main(command) == 0
    told = capsys.readouterr().out
    assert told.count("averaged weights") == averaged
    folder = re.search('Load it:  .*"local-dir:(.*)"', told)[1]
    assert Path(folder).name == ("ema" if averaged else "last")
    assert main([*command[:-2], "--eval", folder]) == 0
    scores = re.search("top-1 .* %, top-5 .* %", told)[0]
    assert scores in capsys.readouterr().out
    assert main([*command[:-2], "--eval", str(Path(folder).parent)]) == 2
    assert repr(folder) in capsys.readouterr().err


def test_an_epoch_whose_score_is_not_finite_is_not_the_best(tmp_path, monkeypatch):
    losses = iter([float("nan"), 2.0, 1.0])

    def scored(*arguments):
        return {**evaluate(*arguments), "loss": next(losses)}

    monkeypatch.setattr("cp_vision.recipes.run.training_run.evaluate", scored)
    summary = Training(load_recipe("digits", [*SMALL, "eval_metric=loss"]), tmp_path / "model").run()
    assert summary["best"]["epoch"] == 3
