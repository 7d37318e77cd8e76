"""The trainer: whatever happens to a training, it comes to the same end."""

import errno
import fcntl
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import binary_cross_entropy_with_logits

from cp_vision import UserError
from cp_vision.recipes import (
    Processes,
    ScoringLoader,
    Trainer,
    Training,
    TrainingError,
    TrainingLoader,
    evaluate,
    load_recipe,
)
from cp_vision.recipes.cli import main
from cp_vision.recipes.data.open import open_split
from cp_vision.recipes.data.sampler import Order
from cp_vision.recipes.models import build_model, data_config, load_teacher, model_args
from cp_vision.recipes.recipe.keys import BUNDLED, Recipe
from cp_vision.recipes.run.checkpoints import load_state, save_state
from cp_vision.recipes.training.task import make_task
from cp_vision.shared.command_line import CommandError

SINGLE = {**os.environ, "OMP_NUM_THREADS": "1"}
CPU = Processes(torch.device("cpu"))
SMALL = ["model=cp_test_vit2", "model_kwargs={patch_size: 16, depth: 2, init_values: 1.0}", "epochs=3"]
MIXED = ["mixup=0.2", "cutmix=0.5", "reprob=0.3", "drop_path=0.2", "color_jitter=0.3", "hflip=0.5"]


def sets(settings):
    return [part for text in settings for part in ("--set", text)]


def digits(*settings):
    return load_recipe("digits", [*SMALL, *settings])


def parts(recipe, processes=CPU, images=1437):
    """A fresh model, the training loader of so many images, and the scoring loader."""
    torch.manual_seed(0)
    model = build_model(recipe.model, model_args(recipe.model, recipe, 10, recipe.model_kwargs))
    config = data_config(model, recipe)
    loader = TrainingLoader(open_split(recipe, "train").part(range(images)), recipe, config, 10, processes)
    return model, loader, ScoringLoader(open_split(recipe, "validation"), recipe, config, processes)


# How a batch is shared.


@pytest.mark.parametrize(
    ("steps", "counts", "mixup"), [*product((1, 2, 4), ((1, 2, 4),), (0.0, 0.2)), (6, (1, 2, 3, 6), 0.2)]
)
def test_processes_share_every_batch(steps, counts, mixup):
    recipe = Recipe(batch_size=8, grad_accum_steps=steps, mixup=mixup)
    images = 8 * steps * 3 + 5
    whole = [place for batch in Order(images, recipe) for place in batch]
    assert len({index for _, _, index in whole}) == len(whole) == 8 * steps * 3
    for count in counts:
        orders = [list(Order(images, recipe, rank, count)) for rank in range(count)]
        turns = {len(order) for order in orders}
        assert turns == {max(1, steps // count) * 3}
        for update in range(3):
            size = len(orders[0]) // 3
            shared = [p for order in orders for batch in order[update * size : (update + 1) * size] for p in batch]
            assert sorted(shared) == sorted(whole[update * 8 * steps : (update + 1) * 8 * steps])
        if mixup:
            # The first and the last of a batch are those that mix in the whole micro-batch.
            for batch in (batch for order in orders for batch in order):
                for one, other in zip(batch, reversed(batch), strict=True):
                    inside = [place[1] % (8 * steps) // steps for place in (one, other)]
                    assert sum(inside) == 7
                assert len({(place[1] // (8 * steps), place[1] % steps) for place in batch}) == 1


def test_an_order_is_a_new_permutation_each_epoch_and_repeats_images():
    recipe = Recipe(batch_size=8)
    order = Order(32, recipe)
    epochs = []
    for epoch in range(2):
        order.start(epoch)
        epochs.append([place[2] for batch in order for place in batch])
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(32))
    assert epochs[0] != epochs[1]
    order.start(1, 3)
    assert len(order) == 1
    assert [place[2] for batch in order for place in batch] == epochs[1][24:]
    repeated = [place[2] for batch in Order(32, recipe.with_values(aug_repeats=3)) for place in batch]
    assert len(repeated) == 32
    assert set(Counter(repeated).values()) <= {2, 3}
    for processes, message in ((3, "can't be shared by 3 processes"), (16, "can't be shared by 16 processes")):
        with pytest.raises(UserError, match=message):
            Order(32, recipe, 0, processes)
    with pytest.raises(UserError, match="batch_size 32 is more than the 31 training images"):
        Order(31, recipe.with_values(batch_size=32))


@pytest.mark.parametrize("settings", [[], MIXED])
def test_batches_depend_on_their_place_alone(settings):
    seen = {}
    for workers in (0, 2):
        recipe = digits(*settings, f"workers={workers}")
        _, loader, _ = parts(recipe, images=512)
        for epoch, first in ((0, 0), (1, 0), (1, 6)):
            batches = list(loader.epoch(epoch, first))
            assert len(batches) == loader.updates - first
            for number, (images, targets) in enumerate(batches, first):
                one = seen.setdefault((epoch, number), (images, targets))
                assert torch.equal(one[0], images)
                assert torch.equal(one[1], targets)
    assert not torch.equal(seen[0, 3][0], seen[1, 3][0])


def test_mixing_ends_where_the_recipe_says():
    _, loader, _ = parts(images=512, recipe=digits("mixup=0.2", "mixup_off_epoch=1", "smoothing=0", "workers=1"))
    for epoch in (0, 1):
        # Also for workers that are there since the first epoch.
        mixed = any(((targets > 0) & (targets < 1)).any() for _, targets in loader.epoch(epoch))
        assert mixed is (epoch == 0)


# The trainer.


@pytest.mark.parametrize(
    "settings",
    [
        ["grad_accum_steps=2", "batch_size=32"],
        ["amp=true", "channels_last=true"],
        ["amp=true", "amp_dtype=float16"],
        ["grad_checkpointing=true", "clip_mode=value"],
        ["bce_loss=true", "mixup=0.1", "cutmix=0.5", "mixup_off_epoch=2", "aug_repeats=3"],
        ["model_ema=true", "model_ema_decay=0.9", "sched=none", "opt=adamw", "lr=0.003"],
        ["model=cp_test_resnet", "model_kwargs={}", "reprob=0.2", "clip_mode=agc", "sched_on_updates=true"],
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


@pytest.mark.slow
def test_distillation_follows_the_teacher(tmp_path):
    teacher = tmp_path / "teacher"
    Training(digits("epochs=6"), teacher).run()
    agreement = {}
    for weight in (0.0, 1.0):
        recipe = digits(f"kd_model_name=local-dir:{teacher / 'last'}", f"distill_loss_weight={weight}")
        recipe = recipe.with_values(task_loss_weight=1 - weight, kd_temperature=2.0, smoothing=0.0)
        folder = tmp_path / f"student{weight}"
        Training(recipe, folder).run()
        names = [f"local-dir:{path}" for path in (teacher / "last", folder / "last")]
        models = [timm.create_model(name, pretrained=True).eval() for name in names]
        _, _, scoring = parts(recipe)
        with torch.inference_mode():
            pairs = [[model(images).log_softmax(1) for model in models] for images, _ in scoring]
        agreement[weight] = sum(float((one - two).abs().mean()) for one, two in pairs)
    # A student of the teacher alone comes nearer to it than one of the labels alone.
    assert agreement[1.0] < agreement[0.0]
    with pytest.raises(UserError, match="tells 10 classes apart, the data set has 3"):
        load_teacher(recipe, 3)


@pytest.mark.parametrize("colours", [3, 1])
def test_a_teacher_sees_the_pixels_that_it_was_trained_on(colours):
    """Whatever normalisation the recipe gives to the student."""
    recipe = digits(f"in_chans={colours}", f"mean={[0.1] * colours}", f"std={[0.7] * colours}")
    student, teacher = (build_model("cp_test_vit2", {"num_classes": 10, "in_chans": colours}) for _ in range(2))
    teacher.pretrained_cfg.update(mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7))
    _, task = make_task(student, recipe, CPU, teacher)
    pixels = torch.rand(2, colours, 4, 4)
    seen = task.teacher.normalize_input((pixels - 0.1) / 0.7, task.student_mean, task.student_std)
    mean, std = ([0.2, 0.3, 0.4], [0.5, 0.6, 0.7]) if colours == 3 else ([0.3], [0.6])
    torch.testing.assert_close(seen, (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1))


def test_deit3_takes_every_class_of_a_mixed_image_for_whole():
    _, task = make_task(build_model("cp_test_vit2", {"num_classes": 3}), load_recipe("cp_vit_small_deit3"), CPU)
    logits = torch.randn(2, 3)
    loss = task.criterion(logits, torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0]]))
    whole = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(logits, whole))


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
    assert "the loss was nan 11 times in a row, in epoch 1; lower lr or set clip_grad" in error
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


# Killed and started again.

KILLED = """
import os, signal, sys
import torch
from cp_vision.recipes import cli
from cp_vision.recipes.run import checkpoints, training_run as fit
from cp_vision.recipes.training import trainer

moment, number = sys.argv[1], int(sys.argv[2])
rename = os.replace
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def at(module, name, before):
    real, calls = getattr(module, name), [0]
    def wrapped(*args, **kwargs):
        calls[0] += 1
        if calls[0] == number:
            before(*args, **kwargs)
        return real(*args, **kwargs)
    setattr(module, name, wrapped)
def half(state, file):
    # The first half of what would have been written.
    import io
    whole = io.BytesIO()
    torch.serialization.save(state, whole)
    file.write(whole.getvalue()[: whole.tell() // 2])
    file.flush()
    die()
if moment == "update":
    at(trainer.Trainer, "_update", lambda *a: die())
elif moment == "writing":
    at(torch, "save", half)
elif moment == "renaming":
    def replace(source, target):
        if str(target).endswith(sys.argv[3]):
            die()
        rename(source, target)
    os.replace = replace
elif moment == "model":
    at(fit, "save_model", lambda *a: die())
sys.exit(cli.main(sys.argv[4:]))
"""


def weights_of(folder):
    return {path.parent.name: load_file(path) for path in sorted(folder.glob("*/model.safetensors"))}


@pytest.mark.slow
def test_killed_at_any_moment_a_training_ends_with_the_same_weights(tmp_path):
    settings = ["model=cp_test_resnet", "model_kwargs={}", "workers=1", *MIXED, "model_ema=true", "model_ema_decay=0.9"]
    settings += [
        "grad_accum_steps=2",
        "batch_size=32",
        "val_interval=2",
        "sched_on_updates=true",
        "recovery_interval=5",
    ]
    command = ["digits", *sets([*SMALL, *settings])]
    whole = tmp_path / "whole"
    assert main([*command, "--output", str(whole)]) == 0
    killed = [*command, "--output", str(tmp_path / "killed")]
    # Each run goes on from the one before it, so all of these come to pass.
    moments = [
        ("renaming", 1, "recipe.yaml"),
        ("writing", 1, ""),
        ("update", 9, ""),
        ("renaming", 1, "checkpoint.previous.pt"),
        ("model", 2, ""),
        ("renaming", 1, "checkpoint.pt"),
        ("update", 20, ""),
        ("writing", 2, ""),
        ("renaming", 1, "last"),
        ("renaming", 1, "summary.json"),
    ]
    for moment in moments:
        run = subprocess.run(
            [sys.executable, "-c", KILLED, *map(str, moment), *killed], capture_output=True, text=True, check=False
        )
        assert run.returncode == -9, (moment, run.stderr)
    assert main(killed) == 0
    one, other = weights_of(whole), weights_of(tmp_path / "killed")
    assert one.keys() == other.keys() >= {"best", "last"}
    for name, tensors in one.items():
        assert all(torch.equal(value, other[name][key]) for key, value in tensors.items())
    for name in ("log.csv", "summary.json", "recipe.yaml"):
        assert (whole / name).read_text() == (tmp_path / "killed" / name).read_text()


TWO = """
import json, sys
import torch
sys.path.insert(0, sys.argv[1])
from test_training import parts
from cp_vision.recipes import Trainer, joined_processes, load_recipe
torch.set_num_threads(1)
with joined_processes() as processes:
    recipe = load_recipe("digits", sys.argv[3:])
    model, loader, _ = parts(recipe, processes)
    trainer = Trainer(model, recipe, loader, processes)
    losses = []
    trainer.train_epoch(losses.append)
    if processes.primary:
        open(sys.argv[2], "w").write(json.dumps(losses))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["mixup=0.2", "cutmix=0.5", "aug_repeats=3"],
        ["model=cp_test_resnet", "model_kwargs={}", "batch_size=32", "grad_accum_steps=2", "dist_bn=reduce"],
    ],
)
def test_two_processes_and_one_have_the_same_losses(settings, tmp_path):
    settings = [*SMALL, "opt=sgd", "lr=0.05", "warmup_epochs=0", *settings]
    losses = {}
    for count in (1, 2):
        path = tmp_path / f"{count}.json"
        script = tmp_path / "two.py"
        script.write_text(TWO)
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        subprocess.run(
            [*start, str(script), str(Path(__file__).parent), str(path), *settings],
            check=True,
            capture_output=True,
            env=SINGLE,
        )
        losses[count] = json.loads(path.read_text())
    assert len(losses[1]) == len(losses[2]) >= 20
    assert np.abs(np.subtract(losses[1], losses[2])).max() < 1e-4
    assert losses[1][-1] < losses[1][0]


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does_and_either_goes_on_for_the_other(tmp_path):
    settings = sets(
        [*SMALL, "epochs=2", "batch_size=128", "model_ema=true", "model_ema_decay=0.9", "recovery_interval=4"]
    )
    train = [str(Path(sys.executable).with_name("cp-train")), "digits", *settings]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    rows = {}
    for name, starts in {"one": [[]], "two": [torchrun], "both": [torchrun, []]}.items():
        folder = tmp_path / name
        for start in starts:
            if name == "both" and start:
                # A killed one: from its checkpoint in the middle of the second epoch.
                shutil.copytree(tmp_path / "two", folder)
                (folder / "summary.json").unlink()
                (folder / "checkpoint.previous.pt").replace(folder / "checkpoint.pt")
                continue
            run = subprocess.run(
                [*start, *train, "--output", str(folder)], check=False, capture_output=True, text=True, env=SINGLE
            )
            assert run.returncode == 0, run.stderr
            assert run.stdout.count("Load it:") == 1
        rows[name] = np.genfromtxt(folder / "log.csv", delimiter=",", names=True)
    for name in ("two", "both"):
        assert np.abs(rows[name]["train_loss"] - rows["one"]["train_loss"]).max() < 1e-3
        assert np.abs(rows[name]["top1"] - rows["one"]["top1"]).max() < 1.5
    # A mistake is one line of the primary process's, and nobody waits for ever.
    wrong = [*torchrun, *train, "--set", "lr=0.5", "--output", str(tmp_path / "two")]
    run = subprocess.run(wrong, check=False, capture_output=True, text=True, env=SINGLE, timeout=120)
    assert run.returncode != 0
    assert "holds a training with lr 0.02, this one has 0.5" in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["01", "1"])
def test_a_data_folder_that_some_processes_lack_is_one_line_of_each(missing, tmp_path):
    for rank in "01":
        (tmp_path / rank).mkdir()
        if rank not in missing:
            for split in ("train", "val"):
                (tmp_path / rank / "data" / split / "cat").mkdir(parents=True)
                Image.new("L", (8, 8)).save(tmp_path / rank / "data" / split / "cat" / "1.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "cp_vision.recipes.cli", "default", "--data-dir", "data"]
    runs = [
        subprocess.Popen(
            command, cwd=tmp_path / rank, env={**SINGLE, **meeting, "RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    errors = [run.communicate(timeout=120)[1].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [2, 2], errors
    for (error,) in errors:
        assert re.fullmatch("cp-train: error: data folder 'data' doesn't exist; .*", error)


# The folder of a training.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a short training, and its command."""
    folder = tmp_path_factory.mktemp("training") / "deep" / "run"
    command = ["digits", *sets([*SMALL, "model_ema=true", "model_ema_decay=0.9"]), "--output", str(folder)]
    assert main(command) == 0
    return folder, command


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


def test_another_training_is_not_mixed_in(trained, capsys, tmp_path):
    folder, command = trained
    before = (folder / "checkpoint.pt").read_bytes()
    for change, message in (
        ("lr=0.5", "holds a training with lr 0.02, this one has 0.5; choose another --output"),
        ("model=cp_resnet18", "holds a training with model 'cp_test_vit2', this one has 'cp_resnet18'"),
        ("num_classes=12", "holds a training with num_classes None, this one has 12"),
    ):
        assert main([*command, "--set", change]) == 2
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1
        assert any(part in error[0] for part in message.split("|")), error
    assert (folder / "checkpoint.pt").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    assert main([*command[:-1], str(tmp_path / "other")]) == 2
    assert "is there and holds no training; choose another --output" in capsys.readouterr().err


HOLD = """
import sys
from pathlib import Path
from cp_vision.recipes.run.output_folder import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_of_two_that_train_into_one_folder_the_second_is_told(tmp_path, capsys):
    command = ["digits", *sets([*SMALL, "epochs=1", "batch_size=512"]), "--output", str(tmp_path)]
    other = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert main(command) == 2
        assert "another process is training there; wait for it" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        process.stdin.close()
    (tmp_path / ".log.csv.1-1.unfinished").write_text("left by a kill")
    assert main(command) == 0
    assert {path.name for path in tmp_path.glob(".*")} == {".lock"}


def test_one_that_was_set_up_before_another_trained_there_looks_again(tmp_path):
    recipe = load_recipe("digits", [*SMALL, "epochs=1", "batch_size=512"])
    first, same, other = (Training(one, tmp_path) for one in (recipe, recipe, recipe.with_values(lr=0.001)))
    first.run()
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for late, message in ((same, "has trained there meanwhile; run the same command again"), (other, "with lr ")):
        with pytest.raises(UserError, match=message):
            late.run()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == held


def test_a_file_system_without_locks_does(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", without)
    recipe = load_recipe("digits", [*SMALL, "epochs=1", "batch_size=512"])
    assert Training(recipe, tmp_path).run()["epochs"] == 1


def test_an_unreadable_checkpoint_loses_nothing(tmp_path, capsys):
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    command = ["digits", *sets([*SMALL, "epochs=1", "recovery_interval=10"])]
    assert main([*command, "--output", str(whole)]) == 0
    assert main([*command, "--output", str(damaged)]) == 0
    (damaged / "summary.json").unlink()
    (damaged / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes()[:1000])
    capsys.readouterr()
    assert main([*command, "--output", str(damaged)]) == 0
    assert "checkpoint.pt' can't be read" in capsys.readouterr().err
    one, other = (load_file(folder / "last" / "model.safetensors") for folder in (whole, damaged))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    (damaged / "summary.json").unlink()
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (damaged / name).write_bytes(b"no checkpoint")
    assert main([*command, "--output", str(damaged)]) == 2
    assert "to start again, or choose another --output" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(trained, tmp_path, capsys):
    """As where a local-dir: folder that a recipe names was replaced by another model's."""
    folder, command = trained
    other = tmp_path / "other"
    assert main([*command[:-1], str(other), "--set", "epochs=1", "--set", "model_kwargs={patch_size: 8}"]) == 0
    (other / "recipe.yaml").write_text((folder / "recipe.yaml").read_text())
    (other / "summary.json").unlink()
    before = (other / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    assert main([*command[:-1], str(other)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "is one of another model: " in error
    assert (other / "checkpoint.pt").read_bytes() == before


def test_channels_last_weights_are_saved_for_everybody(tmp_path):
    settings = ["model=cp_test_resnet", "model_kwargs={}", "channels_last=true", "epochs=1", "batch_size=256"]
    assert main(["digits", *sets([*SMALL, *settings]), "--output", str(tmp_path / "out")]) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'out' / 'last'}", pretrained=True)
    assert model.conv1[0].weight.is_contiguous()


def test_distillation_of_grey_images(tmp_path):
    teacher = tmp_path / "teacher"
    grey = [*SMALL, "in_chans=1", "epochs=1", "batch_size=512"]
    assert main(["digits", *sets(grey), "--output", str(teacher)]) == 0
    grey.append(f"kd_model_name=local-dir:{teacher / 'last'}")
    assert main(["digits", *sets(grey), "--output", str(tmp_path / "student")]) == 0


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(tmp_path, capsys):
    save_state({"progress": {"update": 1}}, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CommandError, match=r"can't write into .*; make room and run the same command again"):
            save_state({"progress": {"update": 2}, "model": torch.zeros(1_000_000)}, tmp_path)
        # Models are written by another library.
        settings = [*SMALL, "model=cp_test_vit", "model_kwargs={}", "epochs=1", "batch_size=512"]
        assert main(["digits", *sets(settings), "--output", str(tmp_path / "out")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "can't write into " in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [".lock"]
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint.pt"]
    assert load_state(tmp_path)[0]["progress"] == {"update": 1}


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"progress": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="can't be read"):
        load_state(tmp_path)
    assert not (tmp_path / "ran").exists()


# Recipes.


def test_every_key_is_one_of_timms():
    known = (Path(__file__).parents[1] / "recipe" / "timm_train_arguments.txt").read_text().split()
    assert set(Recipe.model_fields) <= set(known)
    assert len(known) == len(set(known))


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_takes_a_step(path, capsys):
    recipe = load_recipe(path)
    if recipe.dataset.startswith("torch/"):
        pytest.skip("tests/recipes/data/test_data_sets_of_timm.py has its data")
    # Minutes in bfloat16 where a CPU has none; its smaller sister takes the same step in it.
    precision = ["--set", "amp=false"] if path.stem == "cp_vit_base_deit" else []
    assert main([str(path), "--dry-run", *precision]) == 0
    model, step, run = capsys.readouterr().out.splitlines()
    assert model.startswith(f"{recipe.model}: ")
    assert " GiB of memory" in step
    assert ("fewer than the recipe's" in step) is (recipe.batch_size > 2)
    assert f"{recipe.epochs} epochs of " in run
