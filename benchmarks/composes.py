"""What else can be done to a model that stand-ins made cheaper: half precision, int8, leaving patches out, pruning.

    make demo
    python benchmarks/composes.py runs/digits

For the base and each budget of a search on digits, accuracies after each, on the test images. Torch-Pruning where it is
installed (``pip install torch-pruning==1.6.1``), on what was found and before it. Writes ``results/composes.md``; a
minute of a core.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import copy
import datetime
import importlib.util
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from timm.layers import PatchDropout
from torch import Tensor, nn

from benchmarks.channel_pruning import pruned
from benchmarks.replacement_report import table
from cp_vision import UserError, count_macs
from cp_vision.recipes.data.digits import Digits
from cp_vision.search import compress
from cp_vision.search.fit.accuracy import evaluated
from cp_vision.shared.command_line import run_command

__all__ = ["COLUMNS", "Scored", "accuracies", "fewer_patches", "int8", "megabytes", "pruned_first"]

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("as it is", "bfloat16", "int8 Linear", "a quarter of patches left out", "pruned to 0.7 of its MACs")
ABOUT = """\
# What goes with stand-ins, and what doesn't

`make demo`, then `python benchmarks/composes.py runs/digits`; torch {torch}, timm {timm}, {date}, CPU. Top-1 in percent
of 360 test images of digits; nothing is trained after any of these.

- bfloat16: `model.bfloat16()`.
- int8 Linear: `torch.ao.quantization.quantize_dynamic(model, {{nn.Linear}})`; megabytes of the weights before, after.
- A quarter of patches left out at random, as the model runs (timm's `PatchDropout`).
- Pruned: Torch-Pruning 1.6.1, hidden units and dimensions of heads in what stayed of the base, by norms of weights.
"""


class Scored:
    """Digits as a model sees them.

    Args:
        model: whose size and normalisation they get.
        train: whether they are of the training split.
        count: how many; None for all.
    """

    def __init__(self, model: Any, train: bool = False, count: int | None = None) -> None:
        split = Digits(train=train)
        transform: Any = create_transform(**resolve_model_data_config(model))
        pairs = [split[i] for i in range(len(split) if count is None else count)]
        self.images = torch.stack([transform(image.convert("RGB")) for image, _ in pairs])
        self.labels = torch.tensor([label for _, label in pairs])

    def right(self, model: nn.Module) -> Tensor:
        """For each image 1 where the model is right, else 0."""
        like = next(p for p in model.parameters() if p.is_floating_point())
        return (model(self.images.to(like.dtype)).argmax(1) == self.labels).double()


def int8(model: nn.Module) -> nn.Module:
    """A copy whose Linear layers compute in int8; maps of stand-ins are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    return made


def fewer_patches(model: nn.Module) -> nn.Module:
    """A copy that leaves out a quarter of patches as it runs, drawn at random."""
    made: Any = copy.deepcopy(model)
    # In training it drops, in evaluation it doesn't.
    made.patch_drop = PatchDropout(0.25, num_prefix_tokens=made.num_prefix_tokens).train()
    return made


def pruned_to(model: nn.Module, images: Tensor, share: float) -> nn.Module:
    """A copy with channels pruned to a share of its MACs."""
    made = pruned(model, images, int(share * count_macs(model)), "magnitude")
    if made is None:
        raise RuntimeError("no share of channels is enough")
    return made


def pruned_first(base: nn.Module, images: Tensor, budgets: Sequence[float]) -> list[tuple[float, nn.Module]]:
    """The base pruned to 0.8x, then put under budgets of the base's MACs; with what each costs."""
    whole, narrow = count_macs(base), pruned_to(base, images, 0.8)
    found = compress(
        narrow, images, [f"{budget * whole / 1e6:.4f}M" for budget in budgets], counterparts=False, tries=6
    )
    return [(count_macs(point.model) / whole, point.model) for point in found.points]


def megabytes(model: nn.Module) -> float:
    """What a model's weights take in a file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell() / 1e6


def accuracies(model: nn.Module, test: Any, images: Tensor, with_pruning: bool) -> list[str]:
    """A cell for each column: the accuracy, or why there is none."""
    torch.manual_seed(0)
    makers: list[Callable[[], nn.Module]] = [
        lambda: model,
        lambda: copy.deepcopy(model).bfloat16(),
        lambda: int8(model),
        lambda: fewer_patches(model),
    ]
    if with_pruning:
        makers.append(lambda: pruned_to(model, images, 0.7))
    cells = []
    for name, make in zip(COLUMNS, makers, strict=False):
        try:
            made = make()
            cell = str(evaluated(test.right, made))
        except (RuntimeError, TypeError, UserError) as error:
            # What doesn't go is what is asked here.
            cells.append(f"no: {str(error).splitlines()[0][:60]}")
            continue
        cells.append(f"{cell} ({megabytes(model):.2f} -> {megabytes(made):.2f} MB)" if name == "int8 Linear" else cell)
    return cells


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", type=Path, help="output folder of make demo")
    search = parser.parse_args(argv).search
    budgets = sorted((path.parent.name for path in search.glob("*x/model.safetensors")), reverse=True)
    folders = {"base": search / "base" / "last", **{budget: search / budget for budget in budgets}}
    models = {name: timm.create_model(f"local-dir:{at}", pretrained=True).eval() for name, at in folders.items()}
    base = models["base"]
    # Torch-Pruning tells of every parameter that is in no layer, for each model.
    warnings.filterwarnings("ignore", module="torch_pruning")
    test, fitted = Scored(base), Scored(base, train=True, count=256).images
    with_pruning = importlib.util.find_spec("torch_pruning") is not None
    columns = COLUMNS if with_pruning else COLUMNS[:-1]
    rows = []
    for name, model in models.items():
        rows.append([name, *accuracies(model, test, fitted, with_pruning)])
        print(*rows[-1], sep="\n    ", flush=True)
    date = f"{datetime.datetime.now(datetime.UTC):%d %B %Y}"
    lines = [ABOUT.format(torch=torch.__version__, timm=timm.__version__, date=date), *table(["", *columns], rows)]
    if with_pruning:
        lines.append("The other way round, the base pruned to 0.8x, then put under a budget by `compress`:\n")
        others = [
            [f"{share:.2f}x", str(evaluated(test.right, model))] for share, model in pruned_first(base, fitted, [0.5])
        ]
        lines += table(["MACs", "top-1"], others)
    print("\n".join(lines))
    (RESULTS / "composes.md").write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(run_command(main, None, "composes"))
