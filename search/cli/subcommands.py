"""``cp-search status``, ``report``, ``export`` and ``resume``: on a finished, running or dead search."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from cp_vision.shared.errors import UserError

from ..config.addresses import hide_password
from ..config.files import load_config
from ..config.schema import SearchConfig
from ..outputs.export import export_candidate
from ..outputs.writer import ResultsWriter
from ..runner import Search
from ..study.trials import TrialStore
from ..study.workers import Worker, last_beat
from .display import duration, summary

__all__ = ["run_subcommand"]


def run_subcommand(command: str, args: argparse.Namespace) -> SearchConfig | None:
    """Run one of :data:`~.subcommand_arguments.COMMANDS`.

    Args:
        command: its name.
        args: its arguments, as its parser reads them.

    Returns:
        For ``resume`` the config to search with.

    Raises:
        UserError: no search was begun in the folder, no such candidate.
    """
    changes: dict[str, Any] = {}
    if command == "resume" and args.trials is not None:
        changes["trials"] = args.trials
    config = load_config(args.folder, **changes)
    if command == "resume":
        return config
    search = Search(config)
    if search.place.held() is None:
        raise UserError(
            f"{str(args.folder)!r} holds no study yet; begin it with {hide_password(config.command) or 'cp-search'}"
        )
    study, storage = search.place.load(search.settings, {})
    # It only looks, so it is no worker that others wait for.
    record = TrialStore(study, storage, search.space, Worker(study, search.output))
    writer = ResultsWriter(search, record, trains=True)
    if command == "status":
        print(_status(writer))
    elif command == "report":
        writer.write()
        print(f"Report:   {search.output / 'report.html'}")
        print(f"Table:    {search.output / 'pareto.csv'}")
    else:
        _export(writer, args.number, args.output)
    return None


def _status(writer: ResultsWriter) -> str:
    record, results = writer.record, writer.results()
    lines = [summary(results, writer.context)]
    attrs = record.study.user_attrs
    for trial in record.running:
        owner = trial.user_attrs.get("owner", "")
        number = record.trials.index(trial)
        if trial.state == TrialState.RUNNING and record.worker.is_alive(owner):
            age = time.time() - last_beat(attrs, owner)
            lines.append(f"running: candidate {number} in {owner}, heard of {duration(max(0.0, age))} ago")
        else:
            lines.append(f"to be run again: candidate {number}, whose process {owner} ended")
    left = writer.context.config.candidates - len(record.finished)
    seconds = [c.seconds for c in results.candidates if c.state == "complete"]
    if left > 0 and seconds:
        lines.append(
            f"{left} more to be tried, about {duration(left * sum(seconds) / len(seconds))} in one process; "
            f"go on with: cp-search resume {writer.context.output}"
        )
    return "\n".join(lines)


def _export(writer: ResultsWriter, number: int, folder: Path | None) -> None:
    candidates = {c.number: c for c in writer.candidates()}
    if number not in candidates:
        raise UserError(f"number {number} is no candidate of this search; it has 0 to {max(candidates, default=0)}")
    candidate = candidates[number]
    if candidate.state == "failed":
        raise UserError(f"candidate {number} failed ({candidate.reason}), so it has no weights; export another one")
    folder = folder or writer.context.output / "exported" / str(number)
    if folder.exists():
        raise UserError(f"output {str(folder)!r} is there already; choose another --output")
    export_candidate(writer, candidate, folder)
    print(f'Load it:  timm.create_model("local-dir:{folder}", pretrained=True)')
