"""What building a pooled model costs beside its base, and walking all names without memory.

    python benchmarks/building.py

Writes ``building.md`` to ``--output``: medians of one process in which base and pooled model take turns.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import time
from functools import partial
from pathlib import Path

import timm
import torch

from benchmarks.measure import median_times
from cp_vision.models import cp_models

NAMES = (
    *("resnet18", "resnet50", "resnext50_32x4d", "regnety_016", "convnext_tiny", "swin_tiny_patch4_window7_224"),
    *("swinv2_tiny_window8_256", "vit_tiny_patch16_224", "vit_base_patch16_224", "deit3_small_patch16_224"),
)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    lines = [
        f"Made by `python benchmarks/building.py`, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"timm {timm.__version__}.",
        "",
        "| base | base, ms | with its default pools, ms | ratio |",
        "|---|---|---|---|",
    ]
    for name in NAMES:
        builders = {full: partial(timm.create_model, full) for full in (name, f"cp_{name}")}
        times = median_times(builders, arguments.repeats, 60.0)
        base, pooled = times[name], times[f"cp_{name}"]
        lines.append(f"| {name} | {1e3 * base:.0f} | {1e3 * pooled:.0f} | {pooled / base:.3f} |")
        print(lines[-1], flush=True)
    began = time.perf_counter()
    for base_name in cp_models.BASES:
        with torch.device("meta"):
            timm.create_model(f"cp_{base_name}")
    walked = time.perf_counter() - began
    lines += ["", f"Building all {len(cp_models.BASES)} names on the meta device, one after another: {walked:.0f} s."]
    print(lines[-1])
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "building.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
