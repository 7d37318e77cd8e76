"""``cp-search status``, ``report``, ``export``, ``solve`` and ``resume``: on a finished, running or dead search."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from cp_vision.shared.errors import UserError
from cp_vision.shared.files import needs_room

from ..config.addresses import hide_password
from ..config.files import load_config
from ..config.schema import SearchConfig
from ..outputs.writer import ResultsWriter
from ..selection import finalists
from ..space.space import genotype_key
from ..study.database import StudyDatabase
from ..study.trials import TrialStore
from ..study.workers import Worker, is_alive, last_beat
from .display import duration, summary
from .solve_display import show_solved

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
    if command == "solve":
        print(show_solved(args.scores, args.budget, args.output))
        return None
    changes: dict[str, Any] = {}
    if command == "resume" and args.trials is not None:
        changes["trials"] = args.trials
    config = load_config(args.folder, **changes)
    if command == "resume":
        return config
    if config.evaluator == "fit":
        _of_fit(command, config)
        return None
    writer = _look(config)
    if command == "status":
        print(_status(writer))
    elif command == "report":
        writer.write()
        print(f"Report:   {writer.output / 'report.html'}")
        print(f"Table:    {writer.output / 'pareto.csv'}")
    else:
        _export(writer, args.number, args.output)
    return None


def _of_fit(command: str, config: SearchConfig) -> None:
    """The same of a search by fitted stand-ins, which has no candidates by number."""
    from ..fit.library_files import count_alone, count_fitted
    from ..outputs.fit_results import read_results
    from ..outputs.fit_writer import write_fit_results
    from ..run_fit import BASE, LIBRARY
    from .fit_display import show_fit_results

    output = Path(config.output)
    if command == "export":
        raise UserError(
            f"{str(output)!r} has a folder for each budget, which timm loads as it is; there are no numbers"
        )
    found = read_results(output)
    if found is None:
        done, of = count_fitted(output / LIBRARY)
        text = f"no budget is done yet; options at {done} of {of} blocks are fitted"
        if config.scores is not None:
            text = f"no budget is done yet; {count_alone(output / LIBRARY)} stand-ins are fitted"
        if (output / BASE).is_dir() and not (output / LIBRARY).is_dir():
            log = output / BASE / "log.csv"
            epochs = len(log.read_text(encoding="utf-8").splitlines()) - 1 if log.exists() else 0
            text = f"the base is not trained yet; {epochs} epochs are done"
        if command == "report":
            raise UserError(f"{str(output)!r}: {text}; go on with: cp-search resume {output}")
        print(f"{text}; go on with: cp-search resume {output}")
    elif command == "report":
        with needs_room(output):
            write_fit_results(found, output)
        print(f"Report:   {output / 'report.html'}")
        print(f"Table:    {output / 'front.csv'}")
    else:
        print(show_fit_results(found))


def _look(config: SearchConfig) -> ResultsWriter:
    """What the study in a folder holds; nothing else is opened, and nothing is changed."""
    output = Path(config.output)
    place = StudyDatabase(output, config.storage, config.study)
    contents = place.contents()
    if contents is None and place.is_gone():
        raise UserError(f"{place.gone()}; models that it wrote can still be loaded")
    if contents is None:
        raise UserError(
            f"{str(output)!r} holds no study yet; begin it with {hide_password(config.command) or 'cp-search'}"
        )
    study, storage = place.open_study()
    if study is None:
        raise UserError(f"{place} holds no study {place.name!r} any more")
    # This process is none that others wait for, as it never begins.
    trained = config.evaluator == "train"
    store = TrialStore(study, storage, contents.space, Worker(study, output), config.seed, trained)
    return ResultsWriter(config, contents, store)


def _status(writer: ResultsWriter) -> str:
    record, results = writer.record, writer.results(importance=False)
    lines = [summary(results, writer)]
    attrs = record.study.user_attrs
    for trial in record.running:
        owner = trial.user_attrs.get("owner", "")
        number: int | str = record.keys()[genotype_key(trial.params)]
        if "seed" in trial.user_attrs:
            number = f"{number} with seed {trial.user_attrs['seed']}"
        if trial.state == TrialState.RUNNING and is_alive(writer.output, attrs, owner):
            age = time.time() - last_beat(attrs, owner)
            lines.append(f"running: candidate {number} in {owner}, heard of {duration(max(0.0, age))} ago")
        else:
            lines.append(f"to be run again: candidate {number}, whose process {owner} ended")
    left = writer.config.candidates - len(record.finished)
    seconds = [c.seconds for c in results.candidates if c.state == "complete"]
    what = "to be tried"
    if left <= 0:
        left, what = _finalists_left(writer), "trainings of finalists"
    if left > 0 and seconds:
        lines.append(
            f"{left} more {what}, about {duration(left * sum(seconds) / len(seconds))} in one process; "
            f"go on with: cp-search resume {writer.output}"
        )
    return "\n".join(lines)


def _finalists_left(writer: ResultsWriter) -> int:
    """How many further trainings are not finished of those that are the finalists by what is known now."""
    config, store = writer.config, writer.record
    seeds = config.further_seeds
    # Scores of somebody else's are not asked for again.
    if not store.repeats or not store.base_is_finished:
        return 0
    found = finalists(
        store.candidates(), config.finalists, config.keep_accuracy, store.space.measure, len(seeds) + store.trained
    )
    done = {
        (genotype_key(trial.params), trial.user_attrs["seed"]) for trial in store.repeats if trial.state.is_finished()
    }
    wanted = {(genotype_key(store.choice_of(candidate.number)), seed) for candidate in found for seed in seeds}
    return len(wanted - done)


def _export(writer: ResultsWriter, number: int, folder: Path | None) -> None:
    candidates = {c.number: c for c in writer.candidates()}
    if not candidates:
        raise UserError(f"number {number}: no candidate of this search is finished yet; see cp-search status")
    if number not in candidates:
        raise UserError(f"number {number} is no candidate of this search; it has 0 to {max(candidates)}")
    candidate = candidates[number]
    if candidate.state == "failed":
        raise UserError(f"candidate {number} failed ({candidate.reason}), so it has no weights; export another one")
    folder = folder or writer.output / "exported" / str(number)
    if folder.exists():
        raise UserError(f"output {str(folder)!r} is there already; choose another --output")
    from ..outputs.export import export_candidate

    try:
        export_candidate(writer, candidate, folder)
    except OSError as error:
        raise UserError(
            f"output {str(folder)!r} can't be written: {error.strerror}; choose another --output"
        ) from error
    print(f'Load it:  timm.create_model("local-dir:{folder}", pretrained=True)')
