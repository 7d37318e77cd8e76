"""A candidate as a folder that timm loads, with recipe, metrics and model card."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from cp_vision import Architecture
from cp_vision.shared.files import whole_folder

from ...recipes.recipe.checks import NOT_MODEL_KWARGS
from ...recipes.recipe.keys import Recipe
from ..types import Candidate, Results
from ..uncertainty import standard_error
from .report.figures import find
from .report.headline import pooling
from .report.words import estimate, percent, test_estimate

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
        recipe: what trained it, with the seed of these weights.
        weights: folder with its weights.
        folder: the folder to write; one of that name is replaced.
    """
    args = {key: value for key, value in architecture.create_args.items() if key not in NOT_MODEL_KWARGS}
    data_dir = str(Path(recipe.data_dir).resolve()) if recipe.data_dir else None
    own = recipe.with_values(model=architecture.model_name, model_kwargs=args, data_dir=data_dir)
    train = shlex.join(["cp-train", str(folder / "recipe.yaml"), "--output", f"{folder.parent}-{folder.name}"])
    score = shlex.join(["cp-train", str(folder / "recipe.yaml"), "--eval", str(folder)])
    header = f"# Trains candidate {candidate.number} of this search again, on the whole training split.\n"
    header += f"# Command: {train}\n"
    # Of these weights; what it is expected to be after another training is the mean.
    validation = candidate.by_seed.get(recipe.seed, candidate.accuracy)
    metrics = {
        "base": results.base,
        "architecture": json.loads(architecture.to_json()),
        "macs": candidate.macs,
        "macs_of_base": results.base_macs,
        "params": candidate.params,
        "latency_ms": results.measured_latency.get(candidate.number),
        "validation_top1": validation,
        "test_top1": results.test_accuracy.get(candidate.number, {}).get(recipe.seed),
        "seed": recipe.seed,
        "mean_validation_top1": candidate.score,
        "standard_error": standard_error(candidate, results),
        "validation_top1_by_seed": dict(candidate.by_seed),
        "test_top1_by_seed": dict(results.test_accuracy.get(candidate.number, {})),
        "search_command": results.command,
        "train_command": train,
        "score_command": score,
    }
    files = {
        "recipe.yaml": header + own.to_yaml(),
        "metrics.json": json.dumps(metrics, indent=2) + "\n",
        "README.md": _model_card(results, candidate, folder, recipe.seed, train, score),
    }
    with whole_folder(folder) as unfinished:
        for path in weights.iterdir():
            # Without its permissions, by which nothing may be added perhaps.
            shutil.copyfile(path, unfinished / path.name)
        for name, text in files.items():
            (unfinished / name).write_text(text, encoding="utf-8")


def _model_card(results: Results, candidate: Candidate, folder: Path, seed: int, train: str, score: str) -> str:
    validation = candidate.by_seed.get(seed, candidate.accuracy)
    test = results.test_accuracy.get(candidate.number, {}).get(seed)
    base = find(results, 0)
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
| Validation top-1 of these weights (seed {seed}) | {"not measured" if validation is None else percent(validation)} |
| Test top-1 of these weights | {"not measured" if test is None else percent(test)} |
| Validation top-1 over trainings | {estimate(candidate, results)} |
| Test top-1 over trainings | {test_estimate(candidate, results) or "not measured"} |
| The base's, validation | {"not measured" if base is None else estimate(base, results)} |
| What pooling buys | {"; ".join(pooling(results))} |

Load it:

```python
import timm, cp_vision
model = timm.create_model("local-dir:{folder}", pretrained=True)
```

Score it on the test split: `{score}`

Train it again, on the whole training split: `{train}`
{found_by}"""
