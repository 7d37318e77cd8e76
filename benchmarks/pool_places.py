"""Where a context pool may stand, and what may stand there: the rows and columns of ``operator.py``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from sklearn.datasets import load_sample_image
from timm.layers import create_attn
from torch import Tensor, nn
from torch.nn import functional as F

from cp_vision import ContextPool2d
from cp_vision.pooling.context_pool import uses_linear

__all__ = ["LAYOUTS", "METHODS", "PLACES", "Place", "make_input", "make_method"]

LAYOUTS = {"channels last": torch.channels_last, "planar": torch.contiguous_format}
# The most weights of all images that the exact backend is given; with more it takes tens of times as long as the block.
MOST_WEIGHTS = 1 << 25


@dataclass(frozen=True)
class Place:
    """A map in a network, and the network's own block there."""

    channels: int
    height: int
    width: int
    block: str = "layer1.1"
    model: str = "resnet50"
    batch: int = 8
    layouts: tuple[str, ...] = tuple(LAYOUTS)

    @property
    def name(self) -> str:
        """Height, width and channels, such as 56x56x256."""
        return f"{self.height}x{self.width}x{self.channels}"

    @property
    def methods(self) -> list[str]:
        """What is measured here: the block, the pool by ``"auto"`` and by the other backend if it may, and rivals."""
        auto = "linear" if uses_linear((self.height, self.width)) else "exact"
        large = self.batch * (self.height * self.width) ** 2 > MOST_WEIGHTS
        left_out = {auto, *(("exact", "five fixed Gaussians") if large else ())}
        return [name for name in METHODS if name not in left_out]


PLACES = (
    Place(256, 56, 56),
    Place(512, 28, 28, "layer2.1"),
    Place(1024, 14, 14, "layer3.1"),
    Place(2048, 7, 7, "layer4.1"),
    # Tokens have their channels last. Of a detector's map one image is enough.
    Place(384, 14, 14, "blocks.1", "vit_small_patch16_224", layouts=("channels last",)),
    Place(256, 200, 336, batch=1, layouts=("channels last",)),
)


def make_input(place: Place, batch: int, layout: str) -> Tensor:
    """A map of the place's size, (B, C, H, W), from a photograph: supports and weights follow what is in the image."""
    torch.manual_seed(0)
    photograph = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None].float() / 255
    image = F.interpolate(photograph, (4 * place.height, 4 * place.width), mode="bilinear", antialias=True)
    images = torch.cat([image.roll(31 * shift, 3) for shift in range(batch)])
    with torch.no_grad():
        x = nn.Conv2d(3, place.channels, 7, stride=4, padding=3)(images)
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    return x.contiguous(memory_format=LAYOUTS[layout])


class _Tokens(nn.Module):
    """A transformer's block on the tokens of a map, with a class token as in the network."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        return self.block(torch.cat([tokens[:, :1], tokens], 1))


def _block(place: Place, x: Tensor) -> nn.Module:
    block = timm.create_model(place.model).get_submodule(place.block)
    return _Tokens(block) if place.model.startswith("vit") else block


def _pool(backend: str) -> Callable[[Place, Tensor], nn.Module]:
    """A pool of default options whose predictions differ from token to token by a deviation of 1 (u) and 2 (v)."""

    def make(place: Place, x: Tensor) -> nn.Module:
        pool = ContextPool2d(place.channels, backend=backend)
        with torch.no_grad():
            pool.gate.fill_(0.5)
            pool.mapping[-1].weight.normal_()
            scale = torch.tensor([1.0, 2.0]) / pool.mapping(x).std((0, 2, 3))
            pool.mapping[-1].weight *= scale[:, None, None, None]
        return pool

    return make


class _Exported(nn.Module):
    """A default pool as the graph that ``torch.export`` makes."""

    def __init__(self, place: Place, x: Tensor) -> None:
        super().__init__()
        self.graph = torch.export.export(_pool("auto")(place, x), (x,)).module()

    def train(self, mode: bool = True) -> _Exported:
        return self  # A graph has no such modes.

    def forward(self, x: Tensor) -> Tensor:
        return self.graph(x)


class _FixedGaussians(nn.Module):
    """What blending fixed Gaussians of the weighted map takes at least: its filters and sums, without coefficients.

    Five Gaussians up to the largest support of a default pool, as depthwise convolutions of three deviations each side.
    """

    def __init__(self, place: Place, x: Tensor) -> None:
        super().__init__()
        largest, count = 0.1 + 0.1 * max(place.height, place.width), 5
        sizes = [2 * math.ceil(3 * largest ** ((number + 1) / count)) + 1 for number in range(count)]
        self.filters = nn.ModuleList(
            nn.Conv2d(place.channels, place.channels, size, padding=size // 2, groups=place.channels, bias=False)
            for size in sizes
        )
        self.mapping = nn.Conv2d(place.channels, 2 + count, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight, gate, *shares = self.mapping(x).sigmoid().split(1, 1)
        weighted = x * weight
        blended = weighted
        for blur, share in zip(self.filters, shares, strict=True):
            blended = torch.addcmul(blended, blur(weighted), share)
        return torch.lerp(x, blended, gate)


METHODS: dict[str, Callable[[Place, Tensor], nn.Module]] = {
    "block": _block,
    "auto": _pool("auto"),
    "exact": _pool("exact"),
    "linear": _pool("linear"),
    "auto, exported": _Exported,
    "five fixed Gaussians": _FixedGaussians,
    "depthwise 7x7": lambda place, x: nn.Conv2d(place.channels, place.channels, 7, padding=3, groups=place.channels),
    "average 7x7": lambda place, x: nn.AvgPool2d(7, 1, 3),
    "squeeze and excite": lambda place, x: create_attn("se", place.channels),
}


def make_method(name: str, place: Place, x: Tensor, layout: str) -> nn.Module:
    """A method's module for inputs like x in a layout."""
    torch.manual_seed(0)
    return METHODS[name](place, x).to(memory_format=LAYOUTS[layout])
