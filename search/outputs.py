"""What a search leaves behind: the table of candidates, the report, and the winner's folder."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from pathlib import Path

from cp_vision import Architecture
from cp_vision.files import replace_folder, write_text

from ..recipes.schema import NOT_MODEL_KWARGS, Recipe
from .report import write_report
from .results import Candidate, Results

__all__ = ["write_best", "write_tables"]

COLUMNS = ("number", "pools", "drops", "macs", "params", "accuracy", "state", "front", "seconds", "reason")


def write_tables(results: Results, output: Path) -> None:
    """Write ``pareto.csv`` (a row per candidate; lists are separated by blanks) and ``report.html``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    front = results.front
    for c in results.candidates:
        accuracy = "" if c.accuracy is None else repr(c.accuracy)
        row = [c.number, " ".join(c.pools), " ".join(c.drops), c.macs, c.params, accuracy, c.state]
        writer.writerow([*row, int(c.number in front), f"{c.seconds:.1f}", c.reason])
    write_text(output / "pareto.csv", text.getvalue())
    write_report(results, output / "report.html")


def write_best(
    results: Results,
    winner: Candidate,
    architecture: Architecture,
    recipe: Recipe,
    weights: Path,
    output: Path,
) -> None:
    """Write ``best/``: the winner as a timm ``local-dir:`` folder, with recipe, metrics and model card.

    Args:
        results: of the finished search.
        winner: the winner.
        architecture: what it is.
        recipe: what trained it.
        weights: folder with its weights.
        output: output folder of the search.
    """
    folder = output / "best"
    unfinished = output / ".best.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(weights, unfinished)
    args = {key: value for key, value in architecture.create_args.items() if key not in NOT_MODEL_KWARGS}
    data_dir = str(Path(recipe.data_dir).resolve()) if recipe.data_dir else None
    own = recipe.with_values(model=architecture.model_name, model_kwargs=args, data_dir=data_dir)
    train = shlex.join(
        ["cp-train", str(folder / "recipe.yaml"), "--output", str(output.parent / f"{output.resolve().name}-best")]
    )
    score = shlex.join(["cp-train", str(folder / "recipe.yaml"), "--eval", str(folder)])
    header = f"# Trains the winner of this search again, on the whole training split.\n# Command: {train}\n"
    metrics = {
        "base": results.base,
        "architecture": json.loads(architecture.to_json()),
        "macs": winner.macs,
        "macs_of_base": results.base_macs,
        "params": winner.params,
        "validation_top1": winner.accuracy,
        "test_top1": results.test_accuracy.get(winner.number),
        "search_command": results.command,
        "train_command": train,
        "score_command": score,
    }
    files = {
        "recipe.yaml": header + own.to_yaml(),
        "metrics.json": json.dumps(metrics, indent=2) + "\n",
        "README.md": _model_card(results, winner, folder, train, score),
    }
    for name, text in files.items():
        (unfinished / name).write_text(text, encoding="utf-8")
    replace_folder(unfinished, folder)


def _model_card(results: Results, winner: Candidate, folder: Path, train: str, score: str) -> str:
    tested = results.test_accuracy.get(winner.number)
    found_by = f"\nFound by: `{results.command}`\n" if results.command else ""
    return f"""# {results.base} with ContextPool, found by cp-search

| | |
|---|---|
| Base | {results.base} |
| Data set | {results.dataset} |
| Pools after | {", ".join(winner.pools) or "none"} |
| Blocks left out | {", ".join(winner.drops) or "none"} |
| MACs | {winner.macs:,} ({winner.macs / results.base_macs:.3f} of the base's {results.base_macs:,}) |
| Parameters | {winner.params:,} |
| Validation top-1 | {winner.accuracy:.2f} % |
| Test top-1 | {"not measured" if tested is None else f"{tested:.2f} %"} |

Load it:

```python
import timm, cp_vision
model = timm.create_model("local-dir:{folder}", pretrained=True)
```

Score it on the test split: `{score}`

Train it again, on the whole training split: `{train}`
{found_by}"""
