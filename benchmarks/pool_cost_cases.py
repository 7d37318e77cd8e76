"""Where a pool may stand, and what may stand there: the rows and columns of ``pool_cost.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from sklearn.datasets import load_sample_image
from timm.layers import create_attn
from torch import Tensor, nn
from torch.nn import functional as F

from cp_vision import ContextPool2d
from cp_vision.pooling.exact import squared_distances

__all__ = ["METHODS", "PLACES", "Place", "make_input", "make_method"]

# The most attention weights that a quadratic method is given: 2 GiB of float32.
MOST_WEIGHTS = 1 << 29


@dataclass(frozen=True)
class Place:
    """A map in a network, and the network's own block there."""

    name: str
    channels: int
    height: int
    width: int
    batch: int
    block: Callable[[], nn.Module]
    tokens: bool = False


def _resnet_block(stage: int) -> Callable[[], nn.Module]:
    return lambda: getattr(timm.create_model("resnet50"), f"layer{stage}")[1]


def _vit_block(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name).blocks[1]


PLACES = (
    Place("resnet50 56x56", 256, 56, 56, 8, _resnet_block(1)),
    Place("resnet50 28x28", 512, 28, 28, 8, _resnet_block(2)),
    Place("resnet50 14x14", 1024, 14, 14, 8, _resnet_block(3)),
    Place("resnet50 7x7", 2048, 7, 7, 8, _resnet_block(4)),
    Place("vit_small 224", 384, 14, 14, 8, _vit_block("vit_small_patch16_224"), tokens=True),
    Place("vit_base 224", 768, 14, 14, 8, _vit_block("vit_base_patch16_224"), tokens=True),
    Place("vit_small 384", 384, 24, 24, 8, _vit_block("vit_small_patch16_384"), tokens=True),
    Place("vit_base 384", 768, 24, 24, 8, _vit_block("vit_base_patch16_384"), tokens=True),
    Place("map 112x112", 256, 112, 112, 8, _resnet_block(1)),
    Place("detection 200x336", 256, 200, 336, 1, _resnet_block(1)),
)


def make_input(place: Place) -> Tensor:
    """A map of the place's size, made from a photograph, since supports and weights follow what is in the image.

    Returns:
        (B, C, H, W) in channels-last format, where all methods are at their fastest.
    """
    torch.manual_seed(0)
    photograph = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None].float() / 255
    size = (4 * place.height, 4 * place.width)
    image = F.interpolate(photograph, size, mode="bilinear", antialias=True)
    images = torch.cat([image.roll(31 * shift, 3) for shift in range(place.batch)])
    features = nn.Conv2d(3, place.channels, 7, stride=4, padding=3)
    with torch.no_grad():
        x = features(images)
        x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    return x.contiguous(memory_format=torch.channels_last)


class _Tokens(nn.Module):
    """A transformer's block on the tokens of a map, with a class token as in the network."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        return self.block(torch.cat([tokens[:, :1], tokens], 1))


class _Mapped(nn.Module):
    """The exact pool by other means, weights and supports being those of a gated ContextPool2d."""

    def __init__(self, pool: ContextPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        log_weight, sigma = self.pool.weight_and_support(x)
        pooled = self.average(x, log_weight.flatten(1), sigma.flatten(1))
        return torch.lerp(x, pooled.mT.view_as(x), self.pool.gate[:, None, None])


class Dense(_Mapped):
    """The formula as it stands, without a cut: its smallest weights are denormal numbers."""

    def average(self, x: Tensor, log_weight: Tensor, sigma: Tensor) -> Tensor:
        """Average the tokens of x, (B, N, C)."""
        grid = (x.shape[2], x.shape[3])
        distance = squared_distances(grid, grid, 1, x.device, x.dtype)
        logits = log_weight[:, None, :] - distance * (0.5 / sigma.square())[:, :, None]
        return logits.softmax(-1) @ x.flatten(2).mT


class FusedAttention(_Mapped):
    """The pool as attention with keys (y, x, y^2 + x^2, u), which loses digits.

    ``u_j - |p_i - p_j|^2 / (2 s^2)`` is, up to what does not depend on j, a product of four numbers each.
    """

    def average(self, x: Tensor, log_weight: Tensor, sigma: Tensor) -> Tensor:
        """Average the tokens of x, (B, N, C)."""
        height, width = x.shape[2:]
        rows = torch.arange(height, device=x.device, dtype=x.dtype) - (height - 1) / 2
        columns = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
        y, z = rows[:, None].expand(height, width).flatten(), columns.expand(height, width).flatten()
        precision = 1 / sigma.square()
        ones = torch.ones_like(precision)
        query = torch.stack([y * precision, z * precision, -0.5 * precision, ones], -1)
        key = torch.stack([y * ones, z * ones, (y * y + z * z) * ones, log_weight], -1)
        pad = (0, x.shape[1] - 4)
        tokens = x.flatten(2).mT
        one_head = (F.pad(query, pad)[:, None], F.pad(key, pad)[:, None], tokens[:, None])
        return F.scaled_dot_product_attention(*one_head, scale=1.0)[:, 0]


def _pool(place: Place, backend: str) -> ContextPool2d:
    torch.manual_seed(1)
    pool = ContextPool2d(place.channels, backend=backend)
    with torch.no_grad():
        pool.gate.fill_(0.5)
        pool.mapping[2].weight.normal_(std=2.0)
    return pool


def _depthwise(place: Place) -> nn.Module:
    return nn.Conv2d(place.channels, place.channels, 7, padding=3, groups=place.channels)


METHODS: dict[str, Callable[[Place], nn.Module]] = {
    "block": lambda place: _Tokens(place.block()) if place.tokens else place.block(),
    "auto": lambda place: _pool(place, "auto"),
    "exact": lambda place: _pool(place, "exact"),
    "linear": lambda place: _pool(place, "linear"),
    "dense, uncut": lambda place: Dense(_pool(place, "exact")),
    "fused attention": lambda place: FusedAttention(_pool(place, "exact")),
    "depthwise 7x7": _depthwise,
    "average 7x7": lambda place: nn.AvgPool2d(7, 1, 3),
    "se": lambda place: create_attn("se", place.channels),
    "gc": lambda place: create_attn("gc", place.channels),
    "nl": lambda place: create_attn("nl", place.channels),
}
QUADRATIC = ("exact", "dense, uncut", "fused attention", "nl")


def make_method(name: str, place: Place) -> nn.Module | None:
    """A method's module for a place, or None where a quadratic method needs more memory than is sensible."""
    tokens = place.height * place.width
    if name in QUADRATIC and place.batch * tokens * tokens > MOST_WEIGHTS:
        return None
    torch.manual_seed(0)
    return METHODS[name](place).to(memory_format=torch.channels_last)
