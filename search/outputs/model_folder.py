"""A candidate as a folder that timm loads, with recipe, metrics and model card."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from cp_vision import Architecture
from cp_vision.shared.files import replace_folder

from ...recipes.recipe.checks import NOT_MODEL_KWARGS
from ...recipes.recipe.keys import Recipe
from ..types import Candidate, Results

__all__ = ["write_member"]


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
    unfinished.mkdir()
    for path in weights.iterdir():
        # Without its permissions, by which nothing may be added perhaps.
        shutil.copyfile(path, unfinished / path.name)
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
