"""``cp-search solve``: what a table of scores says is best within budgets, and how to go on from there."""

from __future__ import annotations

import shlex
from pathlib import Path

from cp_vision.shared.errors import UserError, listed
from cp_vision.shared.files import check_path, make_folder, needs_room, write_text

from ..fit.budget import cost_in_words
from ..fit.option import describe
from ..fit.scores import Scores, read_scores, shipped_scores
from ..fit.solve import Solved, solve

__all__ = ["show_solved"]

ARCHITECTURE = "architecture.json"


def show_solved(name: str | None, budget: str, output: Path | None) -> str:
    """Solve, write what was found where that is asked for, and say it in words.

    Args:
        name: of the table, see :func:`~..fit.scores.read_scores`; None lists those that come with the package.
        budget: one or several.
        output: folder to write ``BUDGET/architecture.json`` to.

    Raises:
        UserError: no such table, a budget that can't be met, an output that can't be written.
    """
    if name is None:
        return "\n".join(["scores that come with the package:", *map(_listed, shipped_scores())])
    scores = read_scores(name)
    found = solve(scores, budget)
    if output is not None:
        _write(found, output)
    base = scores.base_costs[found[0].measure]
    lines = [_about(scores)]
    for one in found:
        cost = one.costs[one.measure]
        how = "scored as a whole" if one.is_measured else "predicted"
        lines.append(
            f"  {one.budget}: {cost_in_words(one.measure, cost)}, {cost / base:.3f}x, {scores.measure} "
            f"{one.score:.3g} ({how}): {describe(one.candidate)}"
        )
    if output is not None:
        lines.append(f"Written:  {', '.join(str(output / one.budget / ARCHITECTURE) for one in found)}")
    return "\n".join([*lines, _next(name, budget, scores)])


def _listed(name: str) -> str:
    return f"  {name}: {_about(read_scores(name))}"


def _about(scores: Scores) -> str:
    base = scores.base
    args = "" if base is None else listed((f"{key}={value}" for key, value in base.model_args.items()), 8)
    data = f" of {scores.data}" if scores.data else ""
    return (
        f"{scores.name} ({args}), {cost_in_words('macs', scores.base_costs['macs'])}; scored on {scores.held_out} "
        f"images{data}, {scores.date}"
    )


def _next(name: str, budget: str, scores: Scores) -> str:
    """The command that fits it."""
    base = scores.base
    # The classes are those of the data.
    args = {} if base is None else {k: v for k, v in base.model_args.items() if k not in ("num_classes", "in_chans")}
    words = ["cp-search", scores.name, *(["--model-kwargs"] if args else []), *(f"{k}={v}" for k, v in args.items())]
    command = f"{shlex.join(words)} --weights FILE --data-dir DIR --budget {budget} {shlex.join(['--scores', name])}"
    return f"Fit what they find to your own weights and images: {command}"


def _write(found: list[Solved], output: Path) -> None:
    check_path(output)
    for one in found:
        folder = output / one.budget
        make_folder(folder)
        if (folder / "config.json").exists():
            raise UserError(f"output {str(folder)!r} holds a model already; choose another --output")
        with needs_room(folder):
            write_text(folder / ARCHITECTURE, one.architecture.to_json() + "\n")
