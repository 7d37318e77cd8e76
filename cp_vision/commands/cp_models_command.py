"""``cp-models``: which models there are, where one can pool, and what a trained one has learned.

torch and timm take seconds to import, so functions import them: ``--help`` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shared.command_line import CommandParser, parse_pairs, run_command
from ..shared.errors import UserError, closest, one_line

if TYPE_CHECKING:
    from ..anatomy.sites import Site

__all__ = ["main"]

DESCRIPTION = """\
List ContextPool models, show the sites and stand-ins of one, or draw the supports that it has learned. Examples:

  cp-models                                  every name, with parameters, MACs and sites
  cp-models 'cp_resnet*'                     those that match
  cp-models cp_resnet50                      the sites of one model
  cp-models local-dir:runs/digits-train/best  those of a trained one
  cp-models local-dir:runs/digits-train/last --image cat.jpg --plot supports.png
"""


def parser() -> CommandParser:
    """The arguments of ``cp-models``."""
    made = CommandParser("cp-models", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("name", nargs="?", default="cp_*", help="a model, a local-dir: folder, or a pattern with * or ?")
    made.add_argument("--model-kwargs", nargs="+", default=[], metavar="KEY=VALUE", help="arguments of the model")
    made.add_argument("--checkpoint", help="weights to load, a .safetensors or .pth file")
    made.add_argument("--image", help="image to draw supports over")
    made.add_argument("--plot", metavar="FILE", help="picture to write, for example supports.png")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``cp-models``; returns the exit code."""
    return run_command(_models, arguments, "cp-models")


def _models(arguments: Sequence[str] | None) -> None:
    args = parser().parse_args(arguments)
    model_args = parse_pairs(args.model_kwargs, "--model-kwargs")
    if (args.plot is None) != (args.image is None):
        raise UserError("--plot and --image go together: the picture to write, and the image to draw over")
    if args.checkpoint is not None and args.plot is None:
        raise UserError("--checkpoint is for --plot: name also --image and --plot")
    if any(mark in args.name for mark in "*?[") and not _is_stored(args.name):
        if args.plot is not None:
            raise UserError(f"--plot needs one model, not the pattern {args.name!r}")
        _list(args.name, model_args)
    elif args.plot is None:
        _show(args.name, model_args)
    else:
        _plot(args.name, model_args, args.checkpoint, Path(args.image), Path(args.plot))


def _is_stored(name: str) -> bool:
    from ..models.build import STORED

    return name.startswith(STORED)


def _list(pattern: str, model_args: dict[str, Any]) -> None:
    from timm.models import list_models

    from ..anatomy.block import has_pool
    from ..cost.input_size import input_size_of
    from ..cost.macs import count_macs, format_macs

    names = fnmatch.filter(list_models("cp_*", module="cp_models"), pattern)
    if not names:
        raise UserError(f"no ContextPool model matches {pattern!r}{closest(pattern, list_models('cp_*'))}")
    width = max(map(len, names))
    print(f"{'name':<{width}}  {'pixels':>9}  {'params':>7}  {'MACs':>7}  {'pooled':>7}  sites")
    for name in names:
        try:
            model = _build_meta(name, model_args)
        except UserError as error:
            # Not every model takes every argument.
            if len(names) == 1:
                raise
            print(f"{name:<{width}}  {error}", flush=True)
            continue
        sites = _sites(name, model)
        size = input_size_of(model)
        pooled = [site.name for site in sites if has_pool(model.get_submodule(site.name))]
        plain = count_macs(_build_meta(name, {**model_args, "pools": ()}), size)
        params = sum(parameter.numel() for parameter in model.parameters())
        print(
            f"{name:<{width}}  {f'{size[1]} x {size[2]}':>9}  {format_macs(params):>7}  {format_macs(plain):>7}  "
            f"{format_macs(count_macs(model, size)):>7}  {_count_sites(sites, len(pooled))}",
            flush=True,
        )
    print("MACs of the base, and pooled: with its default pools, for one image")


def _count_sites(sites: Sequence[Any], pooled: int) -> str:
    kinds = [f"{sum(site.kind == kind for site in sites)} {text}" for kind, text in _KINDS.items()]
    return f"{', '.join(text for text in kinds if not text.startswith('0 '))}; {pooled} pooled"


_KINDS = {"block": "blocks", "stem": "stem", "downsample": "down-samplings"}


def _show(name: str, model_args: dict[str, Any]) -> None:
    from ..anatomy.block import DroppedBlock, has_pool
    from ..anatomy.default_pools import default_pools
    from ..anatomy.replacement import Replacement, RestOfRun
    from ..anatomy.sites import format_sites
    from ..cost.input_size import input_size_of
    from ..cost.macs import count_macs, format_macs
    from .stand_in_lines import stand_in_lines

    model = _build_meta(name, model_args)
    size = input_size_of(model)
    sites = _sites(name, model)
    params = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{name}: {format_macs(params)} parameters, {format_macs(count_macs(model))} MACs for an image of "
        f"{size[1]} x {size[2]} pixels"
    )
    print(format_sites(sites, model))
    dropped = [
        path
        for path, module in model.named_modules()
        if isinstance(module, DroppedBlock) and not isinstance(module, RestOfRun)
    ]
    if dropped:
        print(f"dropped: {', '.join(dropped)}")
    stand_ins = [module for module in model.modules() if isinstance(module, Replacement)]
    if stand_ins:
        plain = _build_meta(name, {**model_args, "pools": (), "replaces": ()})
        print("\n".join(stand_in_lines(plain, stand_ins)))
    if not any(has_pool(model.get_submodule(site.name)) for site in sites):
        print(f"no pools; by default they would stand at {', '.join(default_pools(model)) or 'nowhere'}")


def _plot(name: str, model_args: dict[str, Any], checkpoint: str | None, image: Path, path: Path) -> None:
    from .support_maps import open_image, support_maps
    from .support_plot import plot_supports

    if checkpoint is not None:
        if not Path(checkpoint).is_file():
            raise UserError(f"checkpoint {checkpoint!r} is no file; give a .safetensors or .pth file")
        # The classifier has no say in what pools see, whatever its number of classes.
        model_args = {"pretrained_cfg_overlay": {"file": checkpoint}, "num_classes": 0, **model_args}
    if not path.absolute().parent.is_dir():
        raise UserError(f"--plot {str(path)!r}: there is no folder {str(path.parent)!r}; make it first")
    pretrained = checkpoint is not None or name.startswith("local-dir:")
    if not pretrained:
        raise UserError(f"{name!r} has learned nothing yet: give --checkpoint, or a local-dir: folder")
    model = _build(name, {**model_args, "pretrained": True}).eval()
    pixels, picture = open_image(image, model)
    plot_supports(support_maps(model, pixels), picture, path, f"{name}: how far each token looks")
    print(f"wrote {path}")


def _sites(name: str, model: Any) -> list[Site]:
    from ..anatomy.sites import find_sites

    try:
        return find_sites(model)
    except RuntimeError as error:
        raise UserError(f"{name}: {one_line(error)}") from error


def _build_meta(name: str, model_args: dict[str, Any]) -> Any:
    from ..shared.on_meta import on_meta

    with on_meta():
        return _build(name, model_args)


def _build(name: str, model_args: dict[str, Any]) -> Any:
    from timm import create_model
    from timm.models import list_models

    known = list_models()
    if not _is_stored(name) and name.partition(".")[0] not in known:
        raise UserError(f"unknown model {name!r}{closest(name, known)} (cp-models lists all)")
    overlay = model_args.get("pretrained_cfg_overlay")
    if not isinstance(overlay, dict | None):
        raise UserError(f"pretrained_cfg_overlay {overlay!r} must be a dictionary, such as {{'file': 'weights.pth'}}")
    if "features_only" in model_args:
        raise UserError("features_only makes an extractor of features; cp-models shows whole models, leave it out")
    try:
        return create_model(name, **model_args)
    except UserError:
        raise
    except Exception as error:
        # Whatever arguments and files of the user's make timm raise.
        weights = (overlay or {}).get("file")
        source = f" with the weights of {weights!r}" if weights else ""
        raise UserError(f"can't build {name!r}{source}: {type(error).__name__}: {one_line(error)}") from error
