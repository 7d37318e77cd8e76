"""What the pools of ``benchmarks/fewer_layers.py`` have learned: as they are noted, and as they are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from benchmarks.fashion_mnist import resize
from benchmarks.fewer_layers_cases import Family, build
from cp_vision import ContextPool2d
from cp_vision.commands.support_maps import support_maps

__all__ = ["learned", "learned_table"]

_IMAGES = 100


def learned(model: nn.Module, images: Tensor, family: Family) -> str:
    """Gates and supports of a model's context pools, over the first test images; empty where it has none.

    Args:
        model: in evaluation mode.
        images: (N, 1, H, W), normalised.
        family: what it is of.

    Returns:
        JSON: by site the mean size of the gate, or null, and the quartiles of the supports in pixels of the images
        that the model sees.
    """
    if not any(isinstance(module, ContextPool2d) for module in model.modules()):
        return ""
    found = [support_maps(model, image[None]) for image in resize(images[:_IMAGES], family.size)]
    noted = {}
    for maps in zip(*found, strict=True):
        supports = torch.cat([each.sigma.flatten() for each in maps])
        quartiles = supports.quantile(torch.tensor([0.25, 0.5, 0.75]))
        gate = maps[0].gate
        noted[maps[0].site] = [None if gate is None else round(gate, 3), [round(float(q), 2) for q in quartiles]]
    return json.dumps(noted)


def learned_table(family: Family, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines in Markdown: for each site of each model with pools what the first of its seeds learned there.

    Args:
        family: the family.
        rows: its lines of the table of trainings.
    """
    lines: list[str] = []
    seen: set[str] = set()
    for row in rows:
        variant = row["variant"]
        if not row["learned"] or variant in seen:
            continue
        seen.add(variant)
        new = build(family, family.variants[variant]).eval()
        start = json.loads(learned(new, torch.zeros(1, 1, family.size, family.size), family))
        for site, (gate, quartiles) in json.loads(row["learned"]).items():
            shown = "none" if gate is None else f"{gate:.3f}"
            spread = " | ".join(f"{quartile:.1f}" for quartile in quartiles)
            lines.append(f"| {variant} | {row['seed']} | `{site}` | {shown} | {start[site][1][1]:.1f} | {spread} |")
    if not lines:
        return []
    return [
        f"What the pools learned, over {_IMAGES} test images: the mean size of the gate, which starts at zero, and the "
        "supports in pixels of the image, at the start and in the end their quartiles.",
        "",
        "| model | seed | site | gate | start | a quarter below | half below | three quarters below |",
        "|---|---|---|---|---|---|---|---|",
        *lines,
        "",
    ]
