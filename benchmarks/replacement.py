"""What stand-ins fitted in closed form leave unexplained of blocks, beside their rivals of the same cost.

    python benchmarks/replacement.py --data-dir DIR

Networks with real weights on solar cells (packages of the ``bench`` extra), and three trained on Fashion-MNIST;
the weights of those that are trained here are made where ``DIR`` lacks them. Writes results/replacement.{md,csv,svg}.
About an hour on two cores; ``--only`` names parts. ``--hub NAME`` takes a network of timm's with the weights that timm
downloads, on solar cells.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import copy
import csv
import datetime
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.elpv import elpv_images, elpv_labels, elpv_split
from benchmarks.elpv_models import finetuned_on_elpv
from benchmarks.fashion_mnist import open_split
from benchmarks.fashion_models import trained_on_fashion
from benchmarks.measure import times_in_turn
from benchmarks.package_files import INSTALL
from benchmarks.replacement_cost import fitting_cost
from benchmarks.replacement_kinds import register_rivals
from benchmarks.replacement_report import cost_table, draw, read, tables, whole_tables
from benchmarks.trained_models import dinov2_vit_small, efficientnet_lite0, from_hub
from cp_vision import count_macs, drop_blocks, fit_blocks, replace_blocks
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.anatomy.places import Place, find_places
from cp_vision.fitting.batches import Batches
from cp_vision.fitting.capture import Capture
from cp_vision.fitting.recalibrate import recalibrate_norms
from cp_vision.shared.command_line import run_command

RESULTS = Path(__file__).parent / "results"
PLAIN = ("lite0", "dinov2_blocks", "dinov2_attn", "dinov2_mlp", "dinov2_runs", "fashion")
KEPT = ("lite0_kept", "fashion_kept", "dinov2_kept")
PARTS = (*PLAIN, *KEPT, "learned", "whole", "cost")
_LITE0 = tuple(f"blocks.{name}" for name in ("1.1", "2.1", "3.1", "3.2", "4.1", "4.2", "5.1", "5.2", "5.3"))
_STEPS = 200


_ABOUT = """\
`python benchmarks/replacement.py --data-dir DIR`; torch {torch}, timm {timm}, CPU, float32.

Each stand-in is fitted in closed form to one place of a trained network, as if it were the only one; every fourth image
is held out. Figures are the share of the squared change of whole blocks, or of the variance of a half's output, that is
left unexplained on the held-out images; of grids, without class tokens. "of first row's" is the mean over places of
that share divided by the first row's, ± its standard error over places.

![Share left unexplained, by place](replacement.svg)
"""
_KEPT = """\
## With a part of the block beside the map

Some hidden units, heads or channels stay as they are; the map that reads them is fitted with them. In ResNets' blocks
that is to what goes into the last activation, which stays behind the stand-in; there figures are of the blocks'
outputs, on as many images again that no fit saw.
"""
_LEARNED = f"""\
## Do predicted weights and supports pay?

After {_STEPS} local steps of 16 images, which train what pools predict and the maps; the maps are then fitted again.
Where weights alone are predicted, supports stay at the middle of their range.
"""
_WHOLE = """\
## Several blocks at once, nothing trained

Fitted to 128 unlabelled images from input to output; the running statistics of BatchNorms behind the first stand-in are
moved by as much as it moved what reaches them. Behind dropped blocks they are taken anew from these images.
"""
_COST = """\
## What fitting costs

All single-block stand-ins of ViT-S/14 at 112 px on 256 images, beside the base's forward passes over the same images;
medians of three paired turns, peak memory of processes of their own.
"""


class Left(NamedTuple):
    """What a stand-in leaves: a row of ``replacement.csv``.

    Attributes:
        network: the network.
        places: what kind of places: ``blocks``, ``runs of 2``, ``attention halves``, ``MLP halves``.
        place: the place.
        form: of the stand-in.
        seed: that the images were drawn with.
        images: how many.
        macs: the stand-in's, as a share of what it replaces.
        left: share that is left unexplained on held-out images.
        prefix: of class and register tokens; -1 where there are none.
    """

    network: str
    places: str
    place: str
    form: str
    seed: int
    images: int
    macs: float
    left: float
    prefix: float


class Whole(NamedTuple):
    """A network with several blocks replaced: a row of ``replacement_whole.csv``.

    Attributes:
        network: the network.
        form: what stands in the places of the blocks.
        macs: as a share of the base's.
        time: of 64 images, as a share of the base's: the median of paired turns.
        kl: mean over test images of the Kullback-Leibler divergence from the base's probabilities, in nats.
        accuracy: on test images, in percent.
        images: test images.
    """

    network: str
    form: str
    macs: float
    time: float
    kl: float
    accuracy: float
    images: int


def _plain(channels: int) -> dict[str, dict[str, Any]]:
    third = max(1, channels // 3)
    return {
        "map": {"pool": False, "rank": channels},
        "map, rank C/8": {"pool": False, "rank": max(1, channels // 8)},
        "average and map, rank C/3": {"kind": "average", "rank": third},
        "Gaussian and map, rank C/3": {"rank": third},
        "Gaussian and map, full rank": {"rank": channels},
        "two Gaussians and map, rank C/4": {"rank": max(1, channels // 4), "supports": 2},
        "two Gaussians and map, full rank": {"rank": channels, "supports": 2},
        "average alone, then map": {"kind": "average alone", "rank": channels},
        "filters of 3 x 3, then map": {"kind": "depthwise", "rank": channels},
    }


def _learned(channels: int) -> dict[str, dict[str, Any]]:
    third = {"rank": max(1, channels // 3)}
    return {
        "Gaussian, steps": third,
        "learned weights, steps": {**third, "learned_weight": True},
        "learned supports, steps": {**third, "learned_support": True},
        "learned weights and supports, steps": {**third, "learned_weight": True, "learned_support": True},
    }


def _two(channels: int) -> dict[str, dict[str, Any]]:
    forms = _plain(channels)
    return {name: forms[name] for name in ("map", "Gaussian and map, rank C/3")}


def _kept_channels(channels: int) -> dict[str, dict[str, Any]]:
    forms = _two(channels)
    for share in (0.25, 0.5, 1, 2):
        own = {"kind": "narrow_conv", "channels": max(8, round(share * channels / 8) * 8)}
        forms[f"map and {share:g} C channels"] = own
        forms[f"Gaussian and map, rank C/2, and {share:g} C channels"] = {**own, **_beside(channels)}
    return forms


def _kept_filters(width: int, channels: int) -> dict[str, dict[str, Any]]:
    """Of blocks whose middle has C / width channels."""
    middle = channels // width
    rank = "" if width == 1 else f", rank C/{width}"
    forms: dict[str, dict[str, Any]] = {
        f"map{rank}": {"pool": False, "rank": middle},
        f"Gaussian and map{rank or ', full rank'}": {"rank": middle},
    }
    for divisor in (8, 4, 2):
        own = {"kind": "narrow_conv", "channels": max(1, middle // divisor)}
        forms[f"map and 1/{divisor} of the channels"] = own
        if width == 1 and divisor > 2:
            forms[f"map and 1/{divisor} of the channels m, rank 2 m"] = {**own, "rank": 2 * own["channels"]}
        forms[f"Gaussian and map and 1/{divisor} of the channels"] = {**own, "pool": True}
    return forms


def _kept_units(channels: int) -> dict[str, dict[str, Any]]:
    units = {share: {"kind": "narrow_mlp", "units": round(share * channels)} for share in (0.25, 0.5, 1, 2)}
    alone = {f"{s:g} C units alone": {**own, "map": False} for s, own in units.items()}
    return {"map": _plain(channels)["map"], **{f"map and {s:g} C units": own for s, own in units.items()}, **alone}


def _kept_heads(channels: int) -> dict[str, dict[str, Any]]:
    """Of attention with heads of 64 channels."""
    forms = _two(channels)
    for divisor in (6, 3, 2):
        own = {"kind": "narrow_attention", "heads": max(1, channels // 64 // divisor)}
        forms[f"map and 1/{divisor} of the heads"] = own
        forms[f"Gaussian and map, rank C/2, and 1/{divisor} of the heads"] = {**own, **_beside(channels)}
    for divisor in (8, 4, 2):
        own = {"kind": "narrow_attention", "heads": channels // 64, "head_channels": 64 // divisor}
        forms[f"1/{divisor} of each head alone"] = {**own, "map": False}
        forms[f"map and 1/{divisor} of each head"] = own
        forms[f"Gaussian and map, rank C/2, and 1/{divisor} of each head"] = {**own, **_beside(channels)}
    return forms


def _beside(channels: int) -> dict[str, Any]:
    return {"pool": True, "rank": max(1, channels // 2)}


def measure(
    network: str,
    teacher: nn.Module,
    images: Tensor,
    places: str,
    names: Sequence[str],
    count: int,
    make: Any = None,
    seed: int = 0,
    fresh: bool = False,
) -> Iterator[Left]:
    """Fit each form at each place, as if it were the only one, to so many images.

    With ``fresh`` what is left is told of the outputs on as many other images.
    """
    make = make or _plain
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    chosen, others = images[order[:count]], images[order[count : 2 * count]] if fresh else None
    found = {place.name: place for place in find_places(teacher, names)}
    for form in make(64):
        # Not all blocks of a model can be replaced at once.
        for part in (names[::2], names[1::2]):
            of_part = [found[name] for name in part]
            yield from _measure(network, teacher, chosen, others, places, of_part, make, form, seed)


def _measure(
    network: str,
    teacher: nn.Module,
    images: Tensor,
    others: Tensor | None,
    places: str,
    part: Sequence[Place],
    make: Any,
    form: str,
    seed: int,
) -> Iterator[Left]:
    if not part:
        return
    torch.manual_seed(seed)
    student = copy.deepcopy(teacher)
    replace_blocks(student, {place.name: make(place.channels)[form] for place in part})
    # Filters are free, and can only be found by steps.
    steps = _STEPS if "steps" in form or "filters" in form else 0
    fit = fit_blocks(student, teacher, images, inputs="teacher", recalibrate=False, steps=steps)
    by_name = {block.name: block for block in fit.blocks}
    for place in part:
        stand_in: Any = student.get_submodule(place.modules[0])
        macs = place.count * stand_in.stand_in.macs(place.grid) / place.macs
        block = by_name[place.name]
        prefix = -1.0 if block.prefix_unexplained is None else block.prefix_unexplained
        left = block.unexplained if others is None else _left_of_outputs(stand_in, teacher, place, others)
        yield Left(network, places, place.name, form, seed, fit.images, macs, left, prefix)


@torch.no_grad()
def _left_of_outputs(stand_in: nn.Module, teacher: nn.Module, place: Place, images: Tensor) -> float:
    """Squared error of a block's output as a share of its squared change from input to output."""
    first, last = place.modules[0], place.modules[-1]
    with Capture(teacher, [first], [last]) as seen:
        seen.run(images)
    x, y = seen.inputs[first], seen.outputs[last]
    return float((stand_in(x) - y).square().sum() / (y - x).square().sum())


def _blocks(network: str, model: nn.Module, images: Tensor, count: int) -> Iterator[Left]:
    names = [block.name for block in list_blocks(model)]
    yield from measure(network, model, images, "blocks", names, count)


def _halves(half: str, network: str, model: nn.Module, images: Tensor, count: int) -> Iterator[Left]:
    names = [f"{block.name}.{half}" for block in list_blocks(model)]
    yield from measure(network, model, images, f"{half} halves", names, count, _plain if half == "attn" else _two)


def _runs(network: str, model: nn.Module, images: Tensor, count: int) -> Iterator[Left]:
    names = [block.name for block in list_blocks(model)]
    for length in (2, 3, 4):
        runs = [f"{names[i]}:{names[i + length - 1]}" for i in range(0, len(names) - length + 1, length)]
        if runs:
            yield from measure(network, model, images, f"runs of {length}", runs, count, _two)


# What is measured in a transformer.
TRANSFORMER = {"blocks": _blocks, "attn": partial(_halves, "attn"), "mlp": partial(_halves, "mlp"), "runs": _runs}


def lite0() -> Iterator[Left]:
    """EfficientNet-Lite0 of ImageNet on solar cells of 160 pixels."""
    model: Any = efficientnet_lite0()
    images = elpv_images(160, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    yield from measure("lite0", model, images, "blocks", _LITE0, 512)
    runs = [f"blocks.{stage}.1:blocks.{stage}.2" for stage in (3, 4, 5)]
    yield from measure("lite0", model, images, "runs of 2", runs, 512, _two)


def dinov2(places: str) -> Iterator[Left]:
    """DINOv2's ViT-S/14 on solar cells of 112 pixels."""
    model: Any = dinov2_vit_small(112)
    images = elpv_images(112, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    yield from TRANSFORMER[places]("dinov2", model, images, 256)


def lite0_kept() -> Iterator[Left]:
    """The same with some expanded channels beside the map."""
    model: Any = efficientnet_lite0()
    images = elpv_images(160, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    yield from measure("lite0", model, images, "blocks", _LITE0, 512, _kept_channels)


def dinov2_kept() -> Iterator[Left]:
    """The same with some heads or hidden units beside the map."""
    model: Any = dinov2_vit_small(112)
    images = elpv_images(112, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    for half, make in (("attn", _kept_heads), ("mlp", _kept_units)):
        names = [f"{block.name}.{half}" for block in list_blocks(model)]
        yield from measure("dinov2", model, images, f"{half} halves", names, 256, make)


def fashion(data_dir: Path) -> Iterator[Left]:
    """A ViT and a ResNet that were trained on Fashion-MNIST, on its training images."""
    images = open_split(data_dir, train=True)[0][:4096]
    for transformer in TRANSFORMER.values():
        yield from transformer("fashion vit", trained_on_fashion("fashion_vit", data_dir), images, 512)
    resnet = trained_on_fashion("fashion_resnet", data_dir)
    blocks = [block.name for block in list_blocks(resnet) if block.droppable]
    yield from measure("fashion resnet", resnet, images, "blocks", blocks, 512)
    runs = [f"{stage}.1:{stage}.2" for stage in ("layer1", "layer2", "layer3")]
    yield from measure("fashion resnet", resnet, images, "runs of 2", runs, 512)


def fashion_kept(data_dir: Path) -> Iterator[Left]:
    """ResNets of basic blocks and of bottlenecks with some channels beside the map, MLPs of a ConvNeXt with units."""
    images = open_split(data_dir, train=True)[0][:4096]
    for network, width in (("fashion resnet", 1), ("fashion bottlenecks", 4)):
        model = trained_on_fashion(network.replace(" ", "_"), data_dir)
        names = [block.name for block in list_blocks(model) if block.droppable]
        yield from measure(network, model, images, "blocks", names, 512, partial(_kept_filters, width), fresh=True)
    convnext = trained_on_fashion("fashion_convnext", data_dir)
    names = [f"{block.name}.mlp" for block in list_blocks(convnext)]
    yield from measure("fashion convnext", convnext, images, "mlp halves", names, 512, _kept_units)


def learned() -> Iterator[Left]:
    """Whether predicted weights and supports pay, after local steps."""
    model: Any = efficientnet_lite0()
    images = elpv_images(160, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    yield from measure("lite0", model, images, "blocks", _LITE0, 256, _learned)
    model = dinov2_vit_small(112)
    images = elpv_images(112, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    halves = [f"blocks.{i}.attn" for i in (1, 4, 7, 10)]
    yield from measure("dinov2", model, images, "attn halves", halves, 256, _learned)


def whole(data_dir: Path) -> Iterator[Whole]:
    """Several blocks replaced at once, front to back, in networks that were fine-tuned on solar cells.

    Fitted to 128 unlabelled images, as are the running statistics of BatchNorms.
    """
    cases = (
        ("elpv_lite0", 160, _LITE0),
        ("elpv_dinov2", 112, tuple(f"blocks.{i}" for i in (1, 3, 5, 7, 9, 10))),
    )
    for name, size, names in cases:
        base: Any = finetuned_on_elpv(name, data_dir)
        images = elpv_images(size, base.pretrained_cfg["mean"], base.pretrained_cfg["std"])
        train, _, test = elpv_split()
        unlabelled, labels = images[train[:128]], elpv_labels()[test]
        wanted = _log_probabilities(base, images[test])
        judge = partial(_judge, name, base=base, images=images[test], labels=labels, wanted=wanted)
        yield judge("base", model=base)
        dropped = drop_blocks(copy.deepcopy(base), names)
        yield judge("dropped", model=dropped)
        if recalibrate_norms(dropped, Batches(unlabelled, dropped)):
            yield judge("dropped, norms recalibrated", model=dropped)
        for form in ("map", "average and map, rank C/3", "Gaussian and map, rank C/3"):
            student = copy.deepcopy(base)
            replace_blocks(student, {place.name: _plain(place.channels)[form] for place in find_places(base, names)})
            fit_blocks(student, base, unlabelled)
            yield judge(form, model=student)


@torch.no_grad()
def _log_probabilities(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([F.log_softmax(model(batch), 1) for batch in images.split(64)])


def _judge(
    network: str, form: str, base: nn.Module, model: nn.Module, images: Tensor, labels: Tensor, wanted: Tensor
) -> Whole:
    given = _log_probabilities(model.eval(), images)
    kl = float(F.kl_div(given, wanted, log_target=True, reduction="batchmean"))
    accuracy = 100 * float((given.argmax(1) == labels).float().mean())
    shape = tuple(images.shape[1:])
    macs = count_macs(model, shape) / count_macs(base, shape)  # type: ignore[arg-type]
    few = images[:64]
    turns = {"base": lambda: _log_probabilities(base, few), "own": lambda: _log_probabilities(model, few)}
    times = times_in_turn(turns, 7, 60)
    time = statistics.median(own / before for own, before in zip(times["own"], times["base"], strict=True))
    return Whole(network, form, macs, time, kl, accuracy, len(images))


def hub(name: str) -> Iterator[Left]:
    """A network of timm's, at its own image size, on solar cells."""
    model: Any = from_hub(name)
    cfg = model.pretrained_cfg
    images = elpv_images(cfg["input_size"][1], cfg["mean"], cfg["std"])
    names = [block.name for block in list_blocks(model) if block.droppable]
    yield from measure(name, model, images, "blocks", names, 256)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=INSTALL, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="where trained weights are kept")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; others stay")
    parser.add_argument("--hub", metavar="NAME", help="measure this network of timm's in place of all others")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    register_rivals()
    data_dir: Path = arguments.data_dir
    if arguments.hub:
        rows = [{name: str(value) for name, value in row._asdict().items()} for row in _told(hub(arguments.hub))]
        print(*tables(rows), sep="\n")
        return
    parts: dict[str, Any] = {"lite0": lite0, "learned": learned, "cost": fitting_cost}
    parts |= {"lite0_kept": lite0_kept, "dinov2_kept": dinov2_kept}
    parts |= {f"dinov2_{places}": partial(dinov2, places) for places in TRANSFORMER}
    parts |= {"fashion": lambda: fashion(data_dir), "fashion_kept": lambda: fashion_kept(data_dir)}
    parts |= {"whole": lambda: whole(data_dir)}
    for part in arguments.only:
        rows = list(_told(parts[part]()))
        with (arguments.output / f"replacement_{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(rows[0]._fields)
            writer.writerows([f"{v:.5g}" if isinstance(v, float) else v for v in row] for row in rows)
    report(arguments.output)


def report(output: Path) -> None:
    """Write the report of all that was measured."""
    rows = {part: read(output, part) for part in PARTS}
    plain = [row for part in PLAIN for row in rows[part]]
    lines = [
        f"# What fitted stand-ins leave unexplained ({datetime.datetime.now(datetime.UTC):%d %B %Y})\n",
        _ABOUT.format(torch=torch.__version__, timm=timm.__version__),
        *tables(plain),
        _KEPT,
        *tables([row for part in KEPT for row in rows[part]]),
        _LEARNED,
        *tables(rows["learned"]),
        *([_WHOLE, *whole_tables(rows["whole"])] if rows["whole"] else ["## Several blocks at once: not measured\n"]),
        _COST,
        *cost_table(rows["cost"]),
    ]
    (output / "replacement.md").write_text("\n".join(lines))
    draw(plain, output / "replacement.svg")


def _told(rows: Iterator[Any]) -> Iterator[Any]:
    for row in rows:
        print(*(f"{value:.4g}" if isinstance(value, float) else value for value in row), sep="  ", flush=True)
        yield row


if __name__ == "__main__":
    sys.exit(run_command(main, None, "replacement"))
