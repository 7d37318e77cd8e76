"""A training that is asked to end keeps its state first, and the same command goes on; what breaks off says why."""

import re
import signal
import time

import commands
import pytest
import torch
from digits_folder import FOLDER, SMALL, digits, sets, write_folder
from slow_cases import slow_unless

from cp_vision.recipes import Training
from cp_vision.recipes.cli import main
from cp_vision.recipes.data.failures import is_killed_worker, reason_of
from cp_vision.recipes.run.stop_signals import Stopped, StopSignals, stop_signals
from cp_vision.shared.command_line import CommandError


@pytest.mark.parametrize("number", slow_unless({signal.SIGTERM}, [signal.SIGINT, signal.SIGTERM]))
def test_what_is_asked_is_done_after_the_update(number, tmp_path):
    recipe = digits("epochs=1", "seed=3", "recovery_interval=0")
    whole = Training(recipe, tmp_path / "whole").run()
    training, updates = Training(recipe, tmp_path / "run"), []

    def on_update(trainer, loss):
        updates.append(loss)
        if len(updates) == 5:
            signal.raise_signal(number)

    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as stop, pytest.raises(Stopped) as stopped:
        training.run(on_update, stop=stop)
    assert (len(updates), stopped.value.code) == (5, 128 + number)
    assert signal.getsignal(signal.SIGTERM) is before
    again = Training(recipe, tmp_path / "run")
    assert again.trainer.update == 5
    assert again.run() == whole


def test_a_second_time_ends_at_once():
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped):
        stop.check()
    StopSignals().check()


@pytest.mark.slow
def test_a_cluster_that_ends_a_training_with_its_workers(tmp_path):
    """As a scheduler does: SIGTERM to the command and to its loading workers."""
    folder = write_folder(tmp_path / "data")
    output = tmp_path / "run"
    settings = [text for text in FOLDER if not text.startswith(("epochs", "workers"))]
    command = ["cp-train", "default", *sets([*settings, "epochs=2000", "workers=1"])]
    run = commands.start([*command, "--data-dir", str(folder), "--output", str(output)])
    until = time.monotonic() + 120
    while not (output / "log.csv").exists() and time.monotonic() < until:
        time.sleep(0.1)
    import psutil

    for process in (*psutil.Process(run.process.pid).children(recursive=True), run.process):
        process.terminate()
    done = run.wait(60)
    assert done.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("the same command goes on")
    assert (output / "checkpoint.pt").exists()


def test_what_breaks_off_after_the_first_step_is_one_line(tmp_path):
    training = Training(digits("epochs=2"), tmp_path / "run")

    def break_off(trainer, loss):
        if trainer.epoch == 1:
            raise ValueError("bits must be between 1 and 8")

    with pytest.raises(CommandError, match=r"epoch 2: ValueError: bits must be.*last good checkpoint"):
        training.run(break_off)


def test_workers_failures_are_told_by_what_happened():
    killed = RuntimeError("DataLoader worker (pid 24702) is killed by signal: Killed. ")
    passed_on = ValueError(
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback:\n  x\nValueError: bits"
    )
    assert is_killed_worker(killed)
    assert "lower workers" in reason_of(killed)
    assert not is_killed_worker(passed_on)
    assert reason_of(passed_on) == "ValueError: bits"


def test_a_log_has_a_line_an_epoch_and_what_was_found(tmp_path, capsys):
    command = ["digits", *sets(SMALL), "--output", str(tmp_path / "run")]
    assert main(command) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("data: 10 classes (0, 1, ")
    epochs = [re.match(r"epoch (\d)/3: training loss \d\.\d+, .*top-1 [\d.]+ %", line) for line in lines[1:]]
    assert [match and match[1] for match in epochs] == ["1", "2", "3"]


def test_quiet_says_results_alone(tmp_path, capsys):
    assert main(["digits", *sets(SMALL), "--output", str(tmp_path / "run"), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "top-1" in out


@pytest.mark.slow
def test_another_training_s_checkpoint_is_gone_on_from_with_other_values(tmp_path):
    shorter = Training(digits("epochs=2", "sched=constant"), tmp_path / "shorter")
    shorter.run()
    checkpoint = str(tmp_path / "shorter" / "checkpoint.pt")
    longer = Training(digits("epochs=3", "sched=constant"), tmp_path / "longer", resume=checkpoint)
    assert longer.trainer.epoch == 2
    longer.run()
    Training(digits("epochs=3", "sched=constant"), tmp_path / "whole").run()
    weights = [torch.load(tmp_path / name / "checkpoint.pt")["model"] for name in ("longer", "whole")]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


@pytest.mark.parametrize("by_updates", ["sched_on_updates=false", "sched_on_updates=true"])
def test_values_of_the_new_recipe_count_not_those_in_the_checkpoint(by_updates, folder_training, tmp_path):
    # Of a cosine that has come to its end.
    old = folder_training[1].with_values(epochs=1, opt="adamw", min_lr=0.0)
    Training(old, tmp_path / "shorter").run()
    new = old.with_values(epochs=3, weight_decay=0.3, sched_on_updates=by_updates.endswith("true"))
    resumed = Training(new, tmp_path / "longer", resume=str(tmp_path / "shorter" / "checkpoint.pt"))
    fresh = Training(new, tmp_path / "whole")
    groups = [[group["weight_decay"] for group in one.trainer.optimizer.param_groups] for one in (resumed, fresh)]
    assert groups[0] == groups[1]
    assert 0.3 in groups[0]
    assert resumed.trainer.epoch == 1
    rates = {}
    for training in (resumed, fresh):
        rates[training] = []
        training.run(lambda trainer, loss, rates=rates[training]: rates.append(trainer.lr))
    assert rates[resumed] == rates[fresh][-len(rates[resumed]) :]
    assert min(rates[resumed][:-1]) > 0


@pytest.mark.parametrize("content", [None, b"", b"model: resnet50"])
def test_what_is_no_checkpoint_is_named(content, tmp_path, capsys):
    file = tmp_path / "other.pt"
    if content is not None:
        file.write_bytes(content)
    assert main(["digits", *sets(SMALL), "--output", str(tmp_path / "run"), "--resume", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line
    assert "weights_only" not in line
    assert not (tmp_path / "run").exists()


def test_of_several_processes_one_tells_a_mistake(monkeypatch, capsys):
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert main(["digits", "--set", "lr=-1"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_killed_worker_is_told_wherever_it_strikes(image_folder, tmp_path, capsys, monkeypatch):
    def struck(training):
        raise RuntimeError("DataLoader worker (pid 24702) is killed by signal: Killed. ")

    monkeypatch.setattr(Training, "_summary", struck)
    settings = [*FOLDER, "epochs=1", "warmup_epochs=0", f"data_dir={image_folder}"]
    assert main(["default", *sets(settings), "--quiet", "--output", str(tmp_path / "run")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "lower workers" in line
    assert "the same command goes on" in line
