"""What each option saves in time, from parts that are measured once on this device."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cp_vision import Snapshot
from cp_vision.anatomy.places import Place

from ..space.latency import measure_latency
from .kinds import Kind
from .offers import offers
from .places import Spot

__all__ = ["latency_share", "model_latency", "saved_latencies"]

_NANOSECONDS = 1e6
_PAIRS, _SECONDS = 7, 0.02


def model_latency(model: nn.Module, images: Tensor) -> int:
    """Median time of a batch through a whole model, in nanoseconds.

    Args:
        model: in eval mode.
        images: of shape (B, channels, height, width).
    """
    return round(_NANOSECONDS * measure_latency(model, images, seconds=1.0))


def latency_share(model: nn.Module, base: nn.Module, images: Tensor) -> float:
    """Time of a batch through a model as a share of what it takes through the base: the median of pairs of runs.

    Args:
        model: in eval mode.
        base: likewise.
        images: of shape (B, channels, height, width).
    """
    _seconds(model, images, 2)
    _seconds(base, images, 1)
    calls = max(1, int(_SECONDS / _seconds(base, images, 1)))
    # Beside each other: what else the machine does slows both.
    shares = [_seconds(model, images, calls) / _seconds(base, images, calls) for _ in range(_PAIRS)]
    return sorted(shares)[_PAIRS // 2]


@torch.inference_mode()
def _seconds(model: nn.Module, images: Tensor, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        model(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - begin


def saved_latencies(
    model: nn.Module, image: Tensor, spots: Sequence[Spot], kinds: Sequence[Kind]
) -> tuple[int, dict[str, int]]:
    """Nanoseconds of one image that a base takes, and that each option saves, by its key.

    Parts of one shape are measured once. What blocks take by themselves may be more than the whole: then each part
    counts for its share.

    Args:
        model: the base, in eval mode; left as it was.
        image: of shape (1, channels, height, width).
        spots: the places.
        kinds: what may take them.
    """
    times: dict[str, float] = {}

    def timed(key: Sequence[Any], call: Callable[[], float]) -> float:
        name = json.dumps(key)
        if name not in times:
            times[name] = call()
        return times[name]

    with Snapshot(model), torch.inference_mode():
        calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        paths = {path for spot in spots for path in spot.place.modules}
        for path in paths:
            model.get_submodule(path).register_forward_pre_hook(_note(calls, path), with_kwargs=True)
        model(image)
    own: dict[str, float] = {}
    for spot in sorted(spots, key=lambda spot: spot.stop - spot.first):
        # Of a run the blocks were measured before.
        for path in spot.place.modules:
            module, (args, kwargs) = model.get_submodule(path), calls[path]
            key = [type(module).__name__, *_shape(spot.place), spot.half, sum(p.numel() for p in module.parameters())]
            if path not in own:
                own[path] = timed(key, lambda m=module, a=args, k=kwargs: measure_latency(m, *a, **k))  # type: ignore[misc]
    base = model_latency(model, image)
    whole = sum(
        own[path] for spot in spots if not spot.half and spot.stop == spot.first + 1 for path in spot.place.modules
    )
    share = min(1.0, base / _NANOSECONDS / whole) if whole else 1.0
    saved: dict[str, int] = {}
    for spot in spots:
        before = sum(own[path] for path in spot.place.modules)
        with Snapshot(model), torch.inference_mode():
            here = list(offers(model, [spot], kinds))
            # Tells stand-ins their grid.
            model(image)
            for _, option, made in here:
                after = 0.0
                if made is not None:
                    args, _ = calls[spot.place.modules[0]]
                    key = [option.kind, *_shape(spot.place), spot.half, dict(option.options)]
                    after = timed(key, lambda m=made, a=args: measure_latency(m, *a))  # type: ignore[misc]
                saved[option.key] = round(_NANOSECONDS * share * (before - after))
    return base, saved


def _shape(place: Place) -> list[Any]:
    return [place.layout, place.channels, place.prefix, list(place.grid), place.count, place.residual]


def _note(calls: Any, path: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        calls[path] = (args, dict(kwargs))

    return hook
