"""Every key of a recipe does to the thing built what timm's argument of that name says, and nothing does it without."""

import contextlib
import csv
import functools
import json
import math
import shutil
from unittest import mock

import datasets
import pytest
import torch
from digits_folder import write_folder
from recorded import recorded_wandb
from timm.layers import DropPath
from timm.task import LogitDistillationTask
from torch import distributed
from torch.nn import functional as F

from cp_vision.recipes import Processes, ScoringLoader, Trainer, Training, TrainingLoader, open_splits, save_model
from cp_vision.recipes.data.open import count_classes, open_split
from cp_vision.recipes.data.sampler import Order
from cp_vision.recipes.data.seeding import seed_all
from cp_vision.recipes.models import build_model, data_config, model_args
from cp_vision.recipes.recipe.keys import Recipe
from cp_vision.shared.errors import UserError

BASE = {
    "dataset": "digits",
    "workers": 0,
    "model": "test_vit",
    "model_kwargs": {"depth": 2},
    "img_size": 32,
    "batch_size": 8,
    "opt": "momentum",
    "momentum": 0.0,
    "lr": 0.8,
    "weight_decay": 0.0,
    "epochs": 4,
    "smoothing": 0.0,
}
# What a training of a moment needs; three updates an epoch.
TRAINED = {"dataset": "", "data_dir": "{}/data", "batch_size": 20, "epochs": 2, "lr": 0.01}
# A data set of Hugging Face's with columns of other names.
COLUMNS = {"dataset": "hfds/{}/columns", "data_dir": "{}/cache"}


@functools.cache
def split(name, mode):
    return open_split(Recipe(dataset="digits", in_chans=mode), name)


class Built:
    """What a recipe makes, each part when it is first looked at."""

    def __init__(self, values, folder, output):
        self.recipe = Recipe.model_validate(
            {
                key: value.replace("{}", str(folder)) if isinstance(value, str) else value
                for key, value in {**BASE, **values}.items()
            }
        )
        self.folder, self.output, self.device = folder, output, torch.device("cpu")

    processes = Processes(torch.device("cpu"))

    @functools.cached_property
    def model(self):
        torch.manual_seed(0)
        return build_model(self.recipe.model, model_args(self.recipe.model, self.recipe, 10, self.recipe.model_kwargs))

    @functools.cached_property
    def config(self):
        return data_config(self.model, self.recipe)

    @functools.cached_property
    def loader(self):
        images = split("train", self.recipe.in_chans).part(range(32))
        return TrainingLoader(images, self.recipe, self.config, 10, self.processes)

    @functools.cached_property
    def scoring(self):
        images = split("validation", self.recipe.in_chans).part(range(32))
        return ScoringLoader(images, self.recipe, self.config, self.processes)

    @functools.cached_property
    def trainer(self):
        return Trainer(self.model, self.recipe, self.loader, self.processes)

    @property
    def augmentation(self):
        return repr(self.loader.unreadable.images.transform)

    @property
    def preparation(self):
        return repr(self.scoring.unreadable.images.transform)

    @property
    def mixing(self):
        return vars(self.loader.seeded.loader.dataset.mixup)

    @property
    def erasing(self):
        return vars(self.loader.loader.random_erasing) if self.loader.loader.random_erasing else {}

    def targets(self, epoch):
        return next(iter(self.loader.epoch(epoch)))[1]

    @property
    def group(self):
        return self.trainer.optimizer.param_groups[0]

    def groups(self, key):
        return {round(group.get(key, 0), 6) for group in self.trainer.optimizer.param_groups}

    @property
    def rates(self):
        """Learning rates of the epochs."""
        found = []
        for epoch in range(self.trainer.epochs):
            found.append(round(self.trainer.lr, 6))
            self.trainer.scheduler.step(epoch + 1)
        return found

    @property
    def rates_of_updates(self):
        found = []
        self.trainer.train_epoch(lambda loss: found.append(self.trainer.lr))
        return len(set(found))

    @property
    def seen(self):
        """Type and memory format of what the model's first and last layers give in an update."""
        found = {}
        self.model.register_forward_pre_hook(lambda module, images: found.update(images=images[0]))
        self.model.register_forward_hook(lambda module, images, output: found.update(output=output))
        self.trainer.one_update()
        return found

    @property
    def changes(self):
        """What an update changes in the weights, by name; by plain descent, this is lr times the gradient."""
        before = {name: weight.clone() for name, weight in self.model.named_parameters()}
        self.trainer.one_update()
        return {name: weight.detach() - before[name] for name, weight in self.model.named_parameters()}

    @property
    def change(self):
        return torch.cat([change.flatten() for change in self.changes.values()])

    @property
    def loss(self):
        """The loss of fixed logits, and shares of classes."""
        return float(self.trainer.task.criterion(LOGITS, SHARES if self.recipe.mixes else SHARES.argmax(1)))

    @property
    def drop_paths(self):
        self.trainer.task  # noqa: B018 - built there
        return [round(module.drop_prob, 4) for module in self.model.modules() if isinstance(module, DropPath)]

    @functools.cached_property
    def training(self):
        return Training(self.recipe, self.output)

    @functools.cached_property
    def run(self):
        self.training.run()
        return self.output

    @property
    def rows(self):
        return list(csv.DictReader((self.run / "log.csv").open()))

    @property
    def events(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self.run / "tensorboard")).Reload()
        return (
            [event.step for event in events.Scalars("train/loss")] if "train/loss" in events.Tags()["scalars"] else []
        )

    @functools.cached_property
    def wandb(self):
        """What a run of wandb is begun with, or nothing."""
        with recorded_wandb() as runs:
            self.training.run()
        return runs[0].arguments if runs else {"tags": []}

    @property
    def first_weight(self):
        return next(self.training.trainer.model.parameters()).detach()


LOGITS = torch.tensor([[2.0, -1.0, 0.5, *[0.0] * 7], [0.3, 0.2, -2.0, *[1.0] * 7]])
SHARES = torch.tensor([[0.9, 0.1, *[0.0] * 8], [0.0, 1.0, *[0.0] * 8]])
WHOLE = (SHARES > 0.05).float()
BCE = F.binary_cross_entropy_with_logits
NORMS = {"model": "test_resnet", "model_kwargs": {}}
# Shares near a half.
MIXES = {"mixup": 5.0}
ERASES = {"reprob": 0.9}
STEPS = {"sched": "step", "decay_epochs": 1.0, "decay_rate": 0.5}
WARM = {"sched": "constant", "warmup_epochs": 2, "warmup_lr": 0.2}
TEACHER = {"kd_model_name": "test_vit"}
AVERAGES = {"model_ema": True}
LOGGED = {"log_wandb": True, **TRAINED}


def close(found, expected):
    return math.isclose(float(found), float(expected), rel_tol=1e-4)


def taught(built):
    """A trainer with a teacher, whose weights would have to be loaded."""
    return Trainer(built.model, built.recipe, built.loader, built.processes, teacher_weights=False)


def downloads(built):
    """Whether torchvision is asked to download what is not there."""
    with mock.patch("torchvision.datasets.FashionMNIST.download") as download:
        try:
            open_split(built.recipe, "train")
        except UserError:
            return download.called
    return None


def largest_share(built):
    """The largest change of a unit's weights as a share of them, but of the head."""

    def norms(tensor):
        return tensor.flatten(1).norm(dim=1) if tensor.ndim > 1 else tensor.norm().reshape(1)

    weights = {name: weight.detach().clone() for name, weight in built.model.named_parameters()}
    changes = built.changes
    return max((norms(changes[name]) / norms(weights[name]).clamp(min=1e-3)).max() for name in [*weights][:-2]) / 0.8


@contextlib.contextmanager
def two_processes(built):
    """Of two processes the first, in a group that it has for itself."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    built.processes = Processes(torch.device("cpu"), 0, 2)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def synchronises(built):
    with two_processes(built):
        try:
            return built.trainer is None
        except ValueError as error:
            # DistributedDataParallel takes these layers on GPUs alone.
            return "SyncBatchNorm" in str(error)


def keeps_statistics(built):
    """Whether batch norms' statistics are left as they are at an epoch's end; the mean of two halves a single one."""
    with two_processes(built):
        trainer = built.trainer
        mean, seen = next(buffer for name, buffer in built.model.named_buffers() if "running_mean" in name), []
        trainer.train_epoch(lambda loss: seen.append(mean.clone()))
        return bool((mean == seen[-1]).all())


def best_of_two(built):
    """Which is the best epoch, if one before had the highest accuracy."""
    built.training.rows.append({"epoch": -1, "top1": 101.0, "top5": 101.0, "loss": 1e9})
    epoch = json.loads((built.run / "summary.json").read_text())["best"]["epoch"]
    return "highest accuracy" if epoch == -1 else "lowest loss"


def reserve(built):
    """Where the checkpoint before the last one is."""
    return torch.load(built.run / "checkpoint.previous.pt", weights_only=True)["progress"]


def begins_from(built, seed):
    """Whether weights and order are those of a seed."""
    seed_all(seed)
    kwargs = model_args(built.recipe.model, built.recipe, 3, built.recipe.model_kwargs)
    own = next(build_model(built.recipe.model, kwargs).parameters())
    order = Order(60, Recipe(batch_size=20, seed=seed))
    return torch.equal(built.first_weight, own) and list(built.training.loader.order) == list(order)


# A key, a value, the other keys that it needs, and what is true with it and not without.
EFFECTS = [
    # Data
    ("dataset", "", {"data_dir": "{}/data"}, lambda b: len(open_split(b.recipe, "train")) == 60),
    ("data_dir", "{}/data", {"dataset": ""}, lambda b: len(open_split(b.recipe, "train")) == 60),
    ("dataset_download", True, {"dataset": "torch/fashion_mnist", "data_dir": "{}/new"}, lambda b: downloads(b)),
    ("train_split", "val", TRAINED | {"val_split": "train"}, lambda b: len(open_splits(b.recipe)[0]) == 30),
    ("val_split", "more", TRAINED, lambda b: len(open_splits(b.recipe)[1]) == 1),
    ("class_map", "{}/map.txt", TRAINED, lambda b: open_splits(b.recipe)[0].classes == {"0": 0, "1": 2, "2": 1}),
    ("input_key", "img", COLUMNS | {"target_key": "kind"}, lambda b: open_split(b.recipe, "train")[0][1] == 4),
    ("target_key", "kind", COLUMNS | {"input_key": "img"}, lambda b: open_split(b.recipe, "train")[0][1] == 4),
    ("workers", 1, {"workers": 0}, lambda b: b.loader.seeded.loader.num_workers == 1),
    # Model
    ("model", "test_convnext", {"model_kwargs": {}}, lambda b: type(b.model).__name__ == "ConvNeXt"),
    ("model_kwargs", {"depth": 1}, {}, lambda b: len(b.model.blocks) == 1),
    ("pretrained", True, TRAINED | {"model": "local-dir:{}/model"}, lambda b: bool((b.first_weight == 0.5).all())),
    (
        "initial_checkpoint",
        "{}/model/model.safetensors",
        TRAINED,
        lambda b: bool((b.first_weight == 0.5).all()),
    ),
    ("num_classes", 7, {"dataset": "wds/"}, lambda b: count_classes(None, b.recipe) == 7),
    (
        "img_size",
        64,
        {"img_size": None},
        lambda b: (b.config["input_size"][1:], b.model.patch_embed.num_patches) == ((64, 64), 16),
    ),
    ("in_chans", 1, {}, lambda b: (b.seen["images"].shape[1], b.model.patch_embed.proj.in_channels) == (1, 1)),
    ("drop", 0.3, {}, lambda b: b.model.head_drop.p == 0.3),
    ("drop_path", 0.5, {}, lambda b: b.drop_paths == sorted(b.drop_paths) and b.drop_paths[-1:] == [0.5]),
    ("drop_path_uniform", True, {"drop_path": 0.5}, lambda b: b.drop_paths == [0.5] * 4),
    # Input
    (
        "mean",
        [0.2, 0.3, 0.4],
        {},
        lambda b: close(b.loader.loader.mean[0, 1], 76.5) and close(b.scoring.loader.mean[0, 1], 76.5),
    ),
    (
        "std",
        [0.2, 0.3, 0.4],
        {},
        lambda b: close(b.loader.loader.std[0, 1], 76.5) and close(b.scoring.loader.std[0, 1], 76.5),
    ),
    ("interpolation", "nearest", {}, lambda b: "interpolation=nearest" in b.preparation),
    ("crop_pct", 0.5, {}, lambda b: "Resize(size=64" in b.preparation),
    # Optimiser
    ("batch_size", 4, {}, lambda b: (len(b.seen["images"]), b.loader.updates) == (4, 8)),
    ("grad_accum_steps", 2, {}, lambda b: (b.loader.share.count, b.loader.updates) == (2, 2)),
    ("validation_batch_size", 5, {}, lambda b: len(next(iter(b.scoring))[0]) == 5),
    ("opt", "adamp", {}, lambda b: type(b.trainer.optimizer).__name__ == "AdamP"),
    ("lr", 0.4, {}, lambda b: b.groups("lr") == {0.4}),
    ("weight_decay", 0.3, {}, lambda b: b.groups("weight_decay") == {0.0, 0.3}),
    ("momentum", 0.7, {}, lambda b: b.groups("momentum") == {0.7}),
    ("opt_eps", 0.25, {"opt": "adamw"}, lambda b: b.groups("eps") == {0.25}),
    ("opt_betas", [0.6, 0.7], {"opt": "adamw"}, lambda b: list(b.group["betas"]) == [0.6, 0.7]),
    ("layer_decay", 0.5, {}, lambda b: {0.5, 1.0} <= b.groups("lr_scale")),
    ("clip_grad", 0.01, {}, lambda b: close(b.change.norm(), 0.8 * 0.01)),
    ("clip_mode", "value", {"clip_grad": 0.001}, lambda b: close(b.change.abs().max(), 0.8 * 0.001)),
    ("clip_mode", "agc", {"clip_grad": 0.001}, lambda b: close(largest_share(b), 0.001)),
    # Computing
    ("amp", True, {}, lambda b: b.seen["output"].dtype == torch.bfloat16),
    (
        "amp_dtype",
        "float16",
        {"amp": True},
        lambda b: b.trainer.scaler.is_enabled() and b.seen["output"].dtype == torch.float16,
    ),
    (
        "channels_last",
        True,
        {},
        lambda b: (
            b.seen["images"].is_contiguous(memory_format=torch.channels_last)
            and b.model.patch_embed.proj.weight.is_contiguous(memory_format=torch.channels_last)
        ),
    ),
    ("torchcompile", "eager", {}, lambda b: isinstance(b.trainer.task.trainable_module, torch._dynamo.OptimizedModule)),
    (
        "torchcompile_mode",
        "max-autotune-no-cudagraphs",
        {"torchcompile": "inductor"},
        lambda b: b.trainer.task.trainable_module.dynamo_ctx.compiler_config["max_autotune"],
    ),
    ("grad_checkpointing", True, {}, lambda b: b.trainer.model.grad_checkpointing),
    ("sync_bn", True, NORMS, lambda b: synchronises(b)),
    ("dist_bn", "", NORMS, lambda b: keeps_statistics(b)),
    # Schedule
    ("epochs", 3, {"sched": "constant"}, lambda b: b.rates == [0.8] * 3),
    ("sched", "poly", {"decay_rate": 1.0}, lambda b: b.rates == [0.8, 0.6, 0.4, 0.2]),
    ("sched_on_updates", True, {}, lambda b: b.rates_of_updates == 4),
    ("warmup_epochs", 2, {"sched": "constant", "warmup_lr": 0.2}, lambda b: b.rates == [0.2, 0.5, 0.8, 0.8]),
    ("warmup_prefix", True, WARM, lambda b: b.rates == [0.2, 0.5, 0.8, 0.8, 0.8, 0.8]),
    ("warmup_lr", 0.4, {"sched": "constant", "warmup_epochs": 2}, lambda b: b.rates == [0.4, 0.6, 0.8, 0.8]),
    ("min_lr", 0.4, {}, lambda b: b.rates[2] == 0.6),
    ("cooldown_epochs", 2, {"min_lr": 0.1}, lambda b: b.rates[4:] == [0.1, 0.1]),
    ("decay_epochs", 2.0, {"sched": "step", "decay_rate": 0.5}, lambda b: b.rates == [0.8, 0.8, 0.4, 0.4]),
    ("decay_milestones", [2, 4], {"sched": "multistep", "decay_rate": 0.5}, lambda b: b.rates == [0.8, 0.4, 0.4, 0.2]),
    ("decay_rate", 0.25, {"sched": "step", "decay_epochs": 2.0}, lambda b: b.rates == [0.8, 0.8, 0.2, 0.2]),
    # Loss
    ("smoothing", 0.2, {}, lambda b: close(b.loss, F.cross_entropy(LOGITS, SHARES.argmax(1), label_smoothing=0.2))),
    ("smoothing", 0.2, MIXES, lambda b: b.mixing["label_smoothing"] == 0.2),
    ("bce_loss", True, MIXES, lambda b: close(b.loss, BCE(LOGITS, SHARES))),
    ("bce_target_thresh", 0.05, MIXES | {"bce_loss": True}, lambda b: close(b.loss, BCE(LOGITS, WHOLE))),
    # Distillation
    ("kd_model_name", "test_vit", {}, lambda b: isinstance(taught(b).task, LogitDistillationTask)),
    ("kd_temperature", 3.0, TEACHER, lambda b: taught(b).task.temperature == 3.0),
    ("distill_loss_weight", 0.3, TEACHER, lambda b: taught(b).task.distill_loss_weight == 0.3),
    ("task_loss_weight", 0.3, TEACHER, lambda b: taught(b).task.task_loss_weight == 0.3),
    # Augmentation
    ("no_aug", True, ERASES, lambda b: ("Random" in b.augmentation, b.erasing) == (False, {})),
    ("scale", [0.3, 0.6], {}, lambda b: "scale=(0.3, 0.6)" in b.augmentation),
    ("ratio", [0.5, 0.9], {}, lambda b: "ratio=(0.5, 0.9)" in b.augmentation),
    ("hflip", 0.25, {}, lambda b: "RandomHorizontalFlip(p=0.25)" in b.augmentation),
    ("vflip", 0.25, {}, lambda b: "RandomVerticalFlip(p=0.25)" in b.augmentation),
    ("color_jitter", 0.25, {}, lambda b: "ColorJitter(brightness=(0.75, 1.25)" in b.augmentation),
    ("aa", "rand-m7", {}, lambda b: "m=7" in b.augmentation),
    ("aug_repeats", 2, {}, lambda b: len({index for batch in b.loader.order for _, _, index in batch}) == 16),
    ("reprob", 0.25, {}, lambda b: b.erasing.get("probability") == 0.25),
    ("remode", "rand", ERASES, lambda b: b.erasing["mode"] == "rand"),
    ("recount", 3, ERASES, lambda b: b.erasing["max_count"] == 3),
    ("train_interpolation", "lanczos", {}, lambda b: "interpolation=lanczos" in b.augmentation),
    ("mixup", 0.3, {"cutmix": 1.0}, lambda b: b.mixing["mixup_alpha"] == 0.3),
    ("cutmix", 0.3, MIXES, lambda b: b.mixing["cutmix_alpha"] == 0.3),
    ("mixup_prob", 0.3, MIXES, lambda b: b.mixing["mix_prob"] == 0.3),
    ("mixup_switch_prob", 0.3, MIXES, lambda b: b.mixing["switch_prob"] == 0.3),
    ("mixup_mode", "pair", MIXES, lambda b: b.mixing["mode"] == "pair"),
    ("mixup_off_epoch", 1, MIXES, lambda b: bool((b.targets(1).max(1).values == 1).all())),
    # Averaged weights
    ("model_ema", True, {}, lambda b: b.trainer.averaged is not None),
    ("model_ema_decay", 0.75, AVERAGES, lambda b: b.trainer.ema.get_decay(100) == 0.75),
    ("model_ema_warmup", True, AVERAGES, lambda b: close(b.trainer.ema.get_decay(8), 0.75)),
    # Progress
    ("val_interval", 2, TRAINED, lambda b: [bool(row["top1"]) for row in b.rows] == [False, True]),
    ("eval_metric", "loss", TRAINED, lambda b: best_of_two(b) == "lowest loss"),
    ("log_interval", 2, TRAINED, lambda b: b.events == [2, 4, 6]),
    ("recovery_interval", 2, TRAINED, lambda b: reserve(b)["update"] == 1),
    ("checkpoint_hist", 2, TRAINED, lambda b: {folder.name for folder in b.run.glob("history/*")} == {"1", "2"}),
    ("log_wandb", True, TRAINED, lambda b: b.wandb.get("name") == "with"),
    ("wandb_project", "pets", LOGGED, lambda b: b.wandb["project"] == "pets"),
    ("wandb_tags", ["a"], LOGGED, lambda b: b.wandb["tags"] == ["a"]),
    ("wandb_resume_id", "abc", LOGGED, lambda b: (b.wandb["id"], b.wandb["resume"]) == ("abc", "must")),
    ("seed", 7, TRAINED, lambda b: begins_from(b, 7)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set with an image more in a split of its own, a class map, a model whose weights are all 0.5."""
    root = tmp_path_factory.mktemp("effects")
    write_folder(root / "data")
    (root / "data" / "more" / "0").mkdir(parents=True)
    shutil.copy(next((root / "data" / "val" / "0").iterdir()), root / "data" / "more" / "0")
    (root / "map.txt").write_text("0\n2\n1\n")
    image = {"bytes": (root / "data" / "train" / "0" / "0.png").read_bytes(), "path": None}
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.Value("int64")})
    (root / "columns").mkdir()
    datasets.Dataset.from_dict({"img": [image], "kind": [4]}, features).to_parquet(root / "columns" / "train.parquet")
    model = build_model("test_vit", {"num_classes": 3, "img_size": 32, "depth": 2})
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(0.5)
    save_model(model, root / "model", data_config(model, Recipe()))
    return root


@pytest.mark.parametrize(
    ("key", "value", "others", "shows"), EFFECTS, ids=[f"{key}={value}" for key, value, *_ in EFFECTS]
)
def test_every_key_has_its_effect(key, value, others, shows, folder, tmp_path):
    assert shows(Built({**others, key: value}, folder, tmp_path / "with"))
    try:
        without = shows(Built(others, folder, tmp_path / "without"))
    except UserError:
        return
    assert not without


def test_every_key_is_looked_at():
    assert {key for key, *_ in EFFECTS} == set(Recipe.model_fields)
