"""What a training leaves and tells."""

import csv
import json
import math
import re
from pathlib import Path

import pytest
import timm
import torch
from digits_folder import FOLDER, sets
from mistakes import assert_one_line_mistake

from cp_vision.recipes import Training, score_model
from cp_vision.recipes.cli import main
from cp_vision.recipes.run.logs import best_row, best_rows


def test_a_training_leaves_models_logs_and_a_summary(trained, capsys):
    folder, command = trained
    names = {path.name for path in folder.iterdir()}
    files = {"log.csv", "recipe.yaml", "summary.json", "checkpoint.pt", "checkpoint.previous.pt"}
    assert names == files | {"best", "last", "ema", "tensorboard", ".lock"}
    summary = json.loads((folder / "summary.json").read_text())
    rows = (folder / "log.csv").read_text().splitlines()
    assert rows[0] == "epoch,train_loss,loss,top1,top5,plain_loss,plain_top1,plain_top5,lr,skipped"
    assert len(rows) == 4
    assert float(rows[-1].split(",")[3]) == summary["top1"] <= summary["best"]["top1"]
    assert float(rows[-1].split(",")[6]) == summary["plain"]["top1"]
    capsys.readouterr()
    for name, expected in (("best", summary["best"]), ("ema", summary), ("last", summary["plain"])):
        model = timm.create_model(f"local-dir:{folder / name}", pretrained=True)
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
        assert main([*command[:-2], "--eval", str(folder / name)]) == 0
        assert f"top-1 {expected['top1']:.2f} %" in capsys.readouterr().out
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
    assert [event.step for event in events.Scalars("validation/plain_top1")] == [22, 44, 66]
    assert [event.step for event in events.Scalars("train/loss")] == [50]


@pytest.mark.parametrize("averaged", [True, False])
def test_the_model_to_load_has_the_scores_that_are_told(averaged, trained, folder_training, capsys):
    output, recipe, _ = folder_training
    plain = ["default", *sets(FOLDER), "--data-dir", recipe.data_dir, "--output", str(output)]
    command = trained[1] if averaged else plain
    capsys.readouterr()
    assert main(command) == 0
    told = capsys.readouterr().out
    assert told.count("averaged weights") == told.count("plain weights") == averaged
    folder = re.search('Load it:  .*"local-dir:(.*)"', told)[1]
    assert Path(folder).name == ("ema" if averaged else "last")
    assert main([*command[:-2], "--eval", folder]) == 0
    scores = re.search("top-1 .* %, top-5 .* %", told)[0]
    assert scores in capsys.readouterr().out
    assert_one_line_mistake(main, [*command[:-2], "--eval", str(Path(folder).parent)], capsys, [repr(folder)])


def test_without_averaged_weights_there_is_one_kind_of_scores(folder_training):
    output, _, summary = folder_training
    assert (output / "log.csv").read_text().splitlines()[0] == "epoch,train_loss,loss,top1,top5,lr,skipped"
    assert "plain" not in summary


@pytest.mark.parametrize(
    ("metric", "scores", "best"),
    [
        ("top1", [1.0, 3.0, 3.0, 2.0], 2),
        ("top1", [None, 1.0, None, 2.0], 4),
        ("loss", [2.0, 1.0, 3.0], 2),
        # What is not finite is neither more nor less than anything.
        ("loss", [math.nan, 2.0, 1.0], 3),
        ("loss", [-math.inf, 2.0], 2),
        ("loss", [math.nan, math.nan], 1),
        ("top1", [None], None),
        ("top1", [], None),
    ],
)
def test_the_best_epoch(metric, scores, best):
    row = best_row([{"epoch": epoch, metric: score} for epoch, score in enumerate(scores, 1)], metric)
    assert (row and row["epoch"]) == best


@pytest.mark.parametrize(
    ("metric", "scores", "order"),
    [
        ("top1", [1.0, 3.0, None, 3.0, 2.0], [2, 4, 5, 1]),
        ("loss", [2.0, 1.0, math.nan, 1.0], [2, 4, 1]),
        ("loss", [math.nan, None, math.inf], [1, 3]),
    ],
)
def test_the_best_epochs(metric, scores, order):
    rows = [{"epoch": epoch, metric: score} for epoch, score in enumerate(scores, 1)]
    assert [row["epoch"] for row in best_rows(rows, metric)] == order


def test_the_models_of_the_best_epochs_are_kept(folder_training, tmp_path):
    output, recipe, _ = folder_training
    recipe = recipe.with_values(checkpoint_hist=2)
    with (output / "log.csv").open() as file:
        scores = {row["epoch"]: float(row["top1"]) for row in csv.DictReader(file)}
    best = set(sorted(scores, key=lambda epoch: (-scores[epoch], int(epoch)))[:2])
    Training(recipe, tmp_path / "run").run()
    history = tmp_path / "run" / "history"
    assert {folder.name for folder in history.iterdir()} == best
    for epoch in best:
        told = score_model(recipe, str(history / epoch))
        assert told["top1"] == scores[epoch]
