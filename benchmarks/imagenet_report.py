"""The table of ``imagenet.py``: what was found, beside figures that the papers of others print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["PUBLISHED", "TITLES", "rows", "table"]

TITLES = ("", "base and its top-1, %", "MACs", "top-1, %", "training")
# As the papers print them; nothing of it was run here. The last column is what each spends beside the base.
PUBLISHED = (
    ("[Isomorphic Pruning](https://arxiv.org/abs/2407.04616)", "DeiT-B", "4.16 G", "82.41", "long fine-tuning"),
    ("[NViT](https://arxiv.org/abs/2110.04869)", "DeiT-B", "6.8 G", "83.29", "long fine-tuning"),
    ("[LayerMerge](https://arxiv.org/abs/2406.12837)", "ResNet-34", "1.36 x as fast", "74.26", "fine-tuning"),
    ("[ATM](https://arxiv.org/abs/2505.15160)", "DeiT-S", "30 % less", "the base's", "none"),
    ("[ToMe](https://arxiv.org/abs/2210.09461)", "ViT-S, 81.41", "1.64 x as fast", "79.30", "none"),
)


def rows(results: Mapping[str, Any], title: str) -> list[list[str]]:
    """The rows of a base: each budget, and what it was before distillation.

    Args:
        results: ``results.json`` of a search by fits.
        title: what the base is called.
    """
    images, found = results["images"], []
    base = f"{title}, {_accuracy(results['base_test_top1'])}"
    for point in results["points"]:
        name, macs = f"cp-vision, {point['budget']}", f"{point['costs']['macs'] / 1e9:.3g} G"
        before, epochs = point["before_distillation"], point["distilled_epochs"]
        if before is not None:
            untrained = _accuracy(before["test_top1"])
            found.append([f"{name}, before", base, macs, untrained, f"none; fitted to {images} images"])
        training = f"{epochs} epochs of distillation" if epochs else f"none; fitted to {images} images"
        found.append([name, base, macs, _accuracy(point["test_top1"]), training])
    return found


def table(found: Sequence[Sequence[str]]) -> str:
    """A table of these rows and of the published ones, in Markdown."""
    lines = [TITLES, ("---",) * len(TITLES), *found]
    lines += [(f"{name}, its paper's", *rest) for name, *rest in PUBLISHED]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _accuracy(accuracy: Mapping[str, Any]) -> str:
    return f"{accuracy['value']:.2f} ± {accuracy['error']:.2f}"
