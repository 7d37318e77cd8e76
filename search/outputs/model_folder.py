"""What a search leaves behind: the table of candidates, the report, and folders of candidates."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from pathlib import Path

from cp_vision import Architecture
from cp_vision.shared.files import replace_folder, write_text

from ...recipes.recipe.checks import NOT_MODEL_KWARGS
from ...recipes.recipe.keys import Recipe
from ..selection import pareto_front
from ..types import Candidate, Results
from .report.page import render_sensitivity_svg, write_report

__all__ = ["write_member", "write_tables"]

COLUMNS = (
    *("number", "pools", "drops", "mode", "support_range", "img_size", "macs", "params", "latency_ms"),
    *("predicted_latency_ms", "accuracy", "trained_accuracy", "state", "front", "seconds", "reason"),
)


def write_tables(results: Results, output: Path) -> None:
    """Write ``pareto.csv`` and ``report.html``.

    The table has a row per candidate; lists are separated by blanks. ``latency_ms`` is measured on the whole model,
    ``predicted_latency_ms`` is the sum over its parts that a budget of latency goes by.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    front = pareto_front(results.candidates, results.measure)
    for c in results.candidates:
        known = (results.measured_latency.get(c.number), c.latency, c.accuracy, c.trained)
        figures = ["" if figure is None else repr(figure) for figure in known]
        settings = [c.settings.get(name, "") for name in ("mode", "support_range", "img_size")]
        row = [c.number, " ".join(c.pools), " ".join(c.drops), *settings, c.macs, c.params, *figures, c.state]
        writer.writerow([*row, int(c.number in front), f"{c.seconds:.1f}", c.reason])
    write_text(output / "pareto.csv", text.getvalue())
    write_report(results, output / "report.html")
    if results.sensitivity:
        lines = [f"{name},{lost!r}" for name, lost in results.sensitivity.items()]
        write_text(output / "sensitivity.csv", "\n".join(["block,points_lost", *lines, ""]))
        write_text(output / "sensitivity.svg", render_sensitivity_svg(results))


def write_member(
    results: Results,
    candidate: Candidate,
    architecture: Architecture,
    recipe: Recipe,
    weights: Path,
    folder: Path,
) -> None:
    """Write a candidate as a timm ``local-dir:`` folder, with recipe, metrics and model card.

    Args:
        results: of the search.
        candidate: the candidate.
        architecture: what it is.
        recipe: what trained it.
        weights: folder with its weights.
        folder: the folder to write; one of that name is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(weights, unfinished)
    args = {key: value for key, value in architecture.create_args.items() if key not in NOT_MODEL_KWARGS}
    data_dir = str(Path(recipe.data_dir).resolve()) if recipe.data_dir else None
    own = recipe.with_values(model=architecture.model_name, model_kwargs=args, data_dir=data_dir)
    train = shlex.join(["cp-train", str(folder / "recipe.yaml"), "--output", f"{folder.parent}-{folder.name}"])
    score = shlex.join(["cp-train", str(folder / "recipe.yaml"), "--eval", str(folder)])
    header = f"# Trains candidate {candidate.number} of this search again, on the whole training split.\n"
    header += f"# Command: {train}\n"
    metrics = {
        "base": results.base,
        "architecture": json.loads(architecture.to_json()),
        "macs": candidate.macs,
        "macs_of_base": results.base_macs,
        "params": candidate.params,
        "latency_ms": results.measured_latency.get(candidate.number),
        "validation_top1": candidate.accuracy if candidate.trained is None else candidate.trained,
        "test_top1": results.test_accuracy.get(candidate.number),
        "search_command": results.command,
        "train_command": train,
        "score_command": score,
    }
    files = {
        "recipe.yaml": header + own.to_yaml(),
        "metrics.json": json.dumps(metrics, indent=2) + "\n",
        "README.md": _model_card(results, candidate, folder, train, score),
    }
    for name, text in files.items():
        (unfinished / name).write_text(text, encoding="utf-8")
    replace_folder(unfinished, folder)


def _model_card(results: Results, candidate: Candidate, folder: Path, train: str, score: str) -> str:
    tested = results.test_accuracy.get(candidate.number)
    found_by = f"\nFound by: `{results.command}`\n" if results.command else ""
    return f"""# {results.base} with ContextPool, found by cp-search

| | |
|---|---|
| Base | {results.base} |
| Data set | {results.dataset} |
| Pools after | {", ".join(candidate.pools) or "none"} |
| Blocks left out | {", ".join(candidate.drops) or "none"} |
| MACs | {candidate.macs:,} ({candidate.macs / results.base_macs:.3f} of the base's {results.base_macs:,}) |
| Parameters | {candidate.params:,} |
| Validation top-1 | {candidate.accuracy if candidate.trained is None else candidate.trained:.2f} % |
| Test top-1 | {"not measured" if tested is None else f"{tested:.2f} %"} |

Load it:

```python
import timm, cp_vision
model = timm.create_model("local-dir:{folder}", pretrained=True)
```

Score it on the test split: `{score}`

Train it again, on the whole training split: `{train}`
{found_by}"""
