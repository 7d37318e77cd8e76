"""Whether what is saved in MACs is saved in time: images a second of searched models beside their bases.

    python benchmarks/end_to_end.py [FOLDER ...]

A folder is ``best/`` of a search, or any other that ``cp-search`` wrote. Without one: models as a search finds them at
the sizes that people use, and the winner where ``make demo-search`` was run. Forward passes in evaluation, both models
of a pair in turn in one process, medians; writes ``end_to_end.md`` to ``--output``. Weights don't change the time, so
none are loaded.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import datetime
import json
from functools import partial
from pathlib import Path

import timm
import torch

from benchmarks.measure import median_times
from cp_vision import Architecture, UserError

BATCH = 8
DEMO = Path("runs/digits-search/best")
# A third of the blocks gone, two pools; a ConvNet loses blocks of its third stage, where it has most.
EXAMPLES = {
    "ViT-S/16, 224 px": (
        Architecture("vit_small_patch16_224", ("blocks.2", "blocks.5"), tuple(f"blocks.{i}" for i in (7, 8, 9, 10))),
        (3, 224, 224),
    ),
    "DeiT-III S/16, 224 px": (
        Architecture("deit3_small_patch16_224", ("blocks.3", "blocks.6"), tuple(f"blocks.{i}" for i in (8, 9, 10, 11))),
        (3, 224, 224),
    ),
    "ResNet-50, 224 px": (
        Architecture(
            "resnet50", ("layer3.1", "layer4.2"), ("layer1.2", "layer2.3", "layer3.3", "layer3.4", "layer3.5")
        ),
        (3, 224, 224),
    ),
    "ConvNeXt-T, 224 px": (
        Architecture(
            "convnext_tiny",
            ("stages.2.blocks.1", "stages.3.blocks.1"),
            ("stages.0.blocks.2", "stages.2.blocks.4", "stages.2.blocks.5", "stages.2.blocks.6", "stages.2.blocks.7"),
        ),
        (3, 224, 224),
    ),
}


def read(folder: Path) -> tuple[Architecture, tuple[int, int, int]]:
    """Architecture and input size of a folder that a search wrote."""
    metrics = json.loads((folder / "metrics.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    channels, height, width = config["pretrained_cfg"]["input_size"]
    return Architecture.from_json(json.dumps(metrics["architecture"])), (channels, height, width)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    try:
        cases = {str(folder): read(folder) for folder in arguments.folders}
    except (OSError, KeyError, ValueError, UserError) as error:
        parser.error(f"not a folder that a search wrote: {error}")
    if not cases:
        cases = dict(EXAMPLES)
        if DEMO.exists():
            cases["the demo's winner"] = read(DEMO)
    lines = [
        f"Made by `python benchmarks/end_to_end.py` on {datetime.date.today():%d %B %Y}, torch {torch.__version__}, "
        f"timm {timm.__version__}, {torch.get_num_threads()} threads, batches of {BATCH}, medians of up to "
        f"{arguments.repeats} turns.",
        "",
        "| model | pools | blocks left out | MACs | images/s, base | images/s | gain in MACs | gain in images/s | "
        "gain in images/s by that in MACs | at least 0.9 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (architecture, size) in cases.items():
        base = Architecture(architecture.base, model_args=architecture.model_args)
        models = {"base": base.build().eval(), "found": architecture.build().eval()}
        images = torch.randn(BATCH, *size)
        with torch.inference_mode():
            times = median_times({key: partial(model, images) for key, model in models.items()}, arguments.repeats, 120)
        saved, faster = base.macs(size) / architecture.macs(size), times["base"] / times["found"]
        lines.append(
            f"| {name} | {len(architecture.pools)} | {len(architecture.drops)} | {1 / saved:.3f}x | "
            f"{BATCH / times['base']:.1f} | {BATCH / times['found']:.1f} | {saved:.2f} | {faster:.2f} | "
            f"{faster / saved:.2f} | {'reached' if faster / saved >= 0.9 else 'not reached'} |"
        )
        print(lines[-1], flush=True)
    (arguments.output / "end_to_end.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
