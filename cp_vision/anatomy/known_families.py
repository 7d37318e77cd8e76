"""Where the blocks of each model family are, without running the model; other models are searched for them.

Layouts of a block's output: (B, N, C) tokens with N = prefix + H W, (B, C, H, W) "NCHW", (B, H, W, C) "NHWC".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from timm.models.convnext import ConvNeXt
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.resnet import ResNet as TorchvisionResNet
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from ..shared.errors import UserError, closest, listed
from .block import CHILD, Attention, Block, DroppedBlock, has_pool
from .replacement import Replacement
from .unknown_families import discover_blocks

__all__ = ["check_module", "check_names", "check_removable", "is_known", "list_blocks", "register_family"]


def list_blocks(model: nn.Module, input_size: tuple[int, int, int] | None = None) -> list[Block]:
    """List the model's blocks from input to output, without those that were dropped or replaced.

    Args:
        model: a timm or torchvision model, with or without pools. For families other than ResNet, RegNet,
            ConvNeXt, Swin, ViT and DeiT the model is run once, without memory, to find its blocks.
        input_size: (channels, height, width) of the image for that; None takes the model's own.

    Raises:
        UserError: it is no model, or no blocks could be found.
    """
    find = _finder(model)
    if find is None:
        try:
            return discover_blocks(model, input_size)
        except UserError:
            _check_wrapper(model, input_size)
            raise
    return [block for block in find(model) if not isinstance(block.module, DroppedBlock | Replacement)]


def register_family(model_class: type[nn.Module], finder: Callable[[Any], Iterator[Block]]) -> None:
    """Say where the blocks of a class of models are, so that they need not be searched for.

    Args:
        model_class: the models; those of a subclass count among them, unless it is registered itself.
        finder: gives the blocks of such a model from input to output, without running it. It takes the place of the
            class's earlier finder, a built-in one too.

    Raises:
        UserError: not a class of modules, or a finder that can't be called.
    """
    if not (isinstance(model_class, type) and issubclass(model_class, nn.Module)):
        raise UserError(f"model class {model_class!r} must be a class of models, such as timm.models.beit.Beit")
    if not callable(finder):
        raise UserError(f"finder {finder!r} must be a function that takes a model and yields its blocks")
    _FAMILIES[model_class] = finder


def _check_wrapper(model: nn.Module, input_size: tuple[int, int, int] | None) -> None:
    """Raise a UserError where what the model wraps is what should be given, since its names are those to keep."""
    for name, part in model.named_modules():
        # timm gives every model of its own this configuration.
        is_model = isinstance(part, tuple(_FAMILIES)) or hasattr(part, "pretrained_cfg")
        if name and is_model and _has_blocks(part, input_size):
            raise UserError(
                f"{type(model).__name__} models are not supported, but what this one holds as {name!r} is: give that "
                f"{type(part).__name__} itself"
            )


def _has_blocks(model: nn.Module, input_size: tuple[int, int, int] | None) -> bool:
    try:
        return bool(list_blocks(model, input_size))
    except UserError:
        return False


def is_known(model: nn.Module) -> bool:
    """Whether the model is of a family whose blocks are listed here."""
    return _finder(model) is not None


def check_module(model: Any) -> None:
    """Raise a UserError unless it is a module."""
    if not isinstance(model, nn.Module):
        raise UserError(f"{model!r} is no model; make one first, with timm.create_model for example")


def _finder(model: nn.Module) -> Callable[[Any], Iterator[Block]] | None:
    check_module(model)
    if hasattr(model, "_orig_mod"):
        raise UserError("torch.compile has other names for a model's parts; change the model first, then compile it")
    # The most derived class decides, so that a family may be registered whose parent is known.
    return next((_FAMILIES[family] for family in type(model).__mro__ if family in _FAMILIES), None)


def check_names(model: nn.Module, names: tuple[str, ...], allowed: Any, what: str) -> None:
    """Raise a UserError unless each name is in ``allowed``, and there once."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UserError(f"{what} {name!r} is named twice; name each block once")
        if name not in allowed:
            if any(n == name and isinstance(m, DroppedBlock | Replacement) for n, m in model.named_modules()):
                raise UserError(
                    f"{what} {name!r}: this block is dropped or replaced; pools, drops and replacements can't share one"
                )
            kind = "site" if what == "pool" else "block"
            raise UserError(
                f"{what} {name!r} is no {kind} of this model{closest(name, allowed)} ({kind}s: {listed(allowed)})"
            )


def check_removable(act: str, block: Block, blocks: Sequence[Block]) -> None:
    """Raise a UserError unless a block may be dropped or replaced.

    Args:
        act: what is done, such as ``"drop 'blocks.3'"``.
        block: the block.
        blocks: all blocks of its model.
    """
    if not block.droppable:
        allowed = listed(b.name for b in blocks if b.droppable)
        raise UserError(
            f"{act}: {block.name!r} changes the map, or is the first of its stage, and has to stay (allowed: {allowed})"
        )
    if has_pool(block.module):
        raise UserError(f"{act}: a pool stands at {block.name!r}; a block is pooled, dropped or replaced")
    if any(isinstance(part, Replacement) for part in block.module.modules()):
        raise UserError(f"{act}: half of {block.name!r} is replaced already; undo that first")


def _parts(model: nn.Module, row: str) -> list[tuple[str, nn.Module]]:
    """The blocks of a row by name; none where it was cut off, as timm does with stages that features don't need."""
    try:
        parts = model.get_submodule(row)._modules
    except AttributeError:
        return []
    # named_children() leaves out a block that is there a second time.
    return [(name, part) for name, part in parts.items() if part is not None]


def _width(block: nn.Module, info: Mapping[str, Any]) -> int:
    """Channels that a block gives, as its last layer says: pruned models have others than their ``feature_info``."""
    widths = [int(layer.weight.shape[0]) for layer in _layers(block)] or [int(info["num_chs"])]
    # In a user's module around a block the last layer may be any.
    is_own = type(block).__module__.startswith(("timm.", "torchvision."))
    return int(info["num_chs"]) if not is_own and info["num_chs"] in widths else widths[-1]


def _layers(module: nn.Module) -> Iterator[Any]:
    """Layers of a module in order, without those of pools and stand-ins."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        yield module
    for name, part in module.named_children():
        if name != CHILD and not isinstance(part, Replacement):
            yield from _layers(part)


def _resnet(model: Any) -> Iterator[Block]:
    # torchvision's has no feature_info, but blocks that say their stride; both have these stages.
    reductions = {info["module"]: info["reduction"] for info in getattr(model, "feature_info", ())}
    reduction = 4
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for j, (_, block) in enumerate(_parts(model, stage)):
            reduction *= getattr(block, "stride", 1)
            # Pruned models have other widths than their feature_info says. A user's module around a block has the
            # block's width.
            convs = (getattr(part, "conv3", None) or getattr(part, "conv2", None) for part in block.modules())
            last: Any = next((conv for conv in convs if conv is not None), None)
            channels = last.out_channels if last is not None else 0
            # The first block of a stage changes resolution or width, or (ResNet-18, first stage) would if the
            # stem were another one; it stays, so that each stage has at least one block.
            yield Block(f"{stage}.{j}", block, "NCHW", channels, reductions.get(stage, reduction), j > 0)


def _regnet(model: Any) -> Iterator[Block]:
    for info in model.feature_info:
        if info["module"] != "stem":
            for j, (name, block) in enumerate(_parts(model, info["module"])):
                yield Block(f"{info['module']}.{name}", block, "NCHW", _width(block, info), info["reduction"], j > 0)


def _convnext(model: Any) -> Iterator[Block]:
    for info in model.feature_info:
        row = f"{info['module']}.blocks"
        for name, block in _parts(model, row):
            yield Block(f"{row}.{name}", block, "NCHW", _width(block, info), info["reduction"], True)


def _swin(model: Any) -> Iterator[Block]:
    # In version 2 the norm follows attention, so that no child sees what attention does before the windows are cut.
    attention: Attention | None = ("norm1", "output") if isinstance(model, SwinTransformer) else None
    for info in model.feature_info:
        row = f"{info['module']}.blocks"
        for name, block in _parts(model, row):
            yield Block(f"{row}.{name}", block, "NHWC", _width(block, info), info["reduction"], True, attention)


def _vit(model: Any) -> Iterator[Block]:
    for i, (info, block) in enumerate(zip(model.feature_info, model.blocks, strict=False)):
        attention: Attention | None = ("attn", "input") if hasattr(block, "attn") else None
        yield Block(
            name=f"blocks.{i}",
            module=block,
            layout="tokens",
            channels=_width(block, info),
            reduction=info["reduction"],
            droppable=True,
            attention=attention,
            prefix=model.num_prefix_tokens,
        )


def _torchvision_vit(model: Any) -> Iterator[Block]:
    for name, block in _parts(model, "encoder.layers"):
        yield Block(
            name=f"encoder.layers.{name}",
            module=block,
            layout="tokens",
            channels=_width(block, {"num_chs": model.hidden_dim}),
            reduction=model.patch_size,
            droppable=True,
            attention=("ln_1", "output"),
            prefix=1,
        )


_FAMILIES: dict[type[nn.Module], Callable[[Any], Iterator[Block]]] = {
    ResNet: _resnet,
    TorchvisionResNet: _resnet,
    RegNet: _regnet,
    ConvNeXt: _convnext,
    SwinTransformer: _swin,
    SwinTransformerV2: _swin,
    VisionTransformer: _vit,
    TorchvisionViT: _torchvision_vit,
}
