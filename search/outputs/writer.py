"""What a study holds, as candidates and results, and the table and the report that show them, while it goes on."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from cp_vision import Architecture
from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import one_line
from cp_vision.shared.files import write_text

from ..config.addresses import hide_password
from ..config.schema import SearchConfig
from ..selection import Leaders, finalists, leaders, pareto_front
from ..study.contents import StudyContents
from ..study.trials import TrialStore
from ..study.workers import folder_lock
from ..types import Candidate, Results
from ..uncertainty import standard_error
from .agreement import kendall_tau
from .importance import site_importance
from .report.page import render_sensitivity_svg, write_report
from .summary import summarize

__all__ = ["ResultsWriter", "write_tables"]

COLUMNS = (
    *("number", "pools", "drops", "mode", "support_range", "img_size", "macs", "params", "latency_ms"),
    *("predicted_latency_ms", "accuracy", "mean_accuracy", "standard_error", "seeds", "state", "front", "seconds"),
    "reason",
)


class ResultsWriter:
    """The one place where results are made of what a study holds; needs neither the data nor the recipe's file.

    Args:
        config: of the search, for what the study doesn't hold: its output folder, command and number of trials.
        contents: what the study holds of the search.
        record: what was tried.
    """

    def __init__(self, config: SearchConfig, contents: StudyContents, record: TrialStore) -> None:
        self.config, self.contents, self.record = config, contents, record
        self.space, self.output = record.space, Path(config.output)

    def candidates(self) -> list[Candidate]:
        """The finished candidates."""
        return self.record.candidates()

    def leaders(self) -> Leaders:
        """Who leads."""
        return leaders(self.candidates(), self.config.keep_accuracy, self.space.measure)

    def front(self) -> list[Candidate]:
        """The members of the front that keep the budgets, cheapest first."""
        candidates = {c.number: c for c in self.candidates()}
        return [candidates[number] for number in pareto_front(candidates.values(), self.space.measure)]

    def parts(self, candidate: Candidate) -> tuple[Architecture, int | None]:
        """A candidate's architecture and image size."""
        choice = self.record.choice_of(candidate.number)
        return self.space.architecture(choice), self.space.img_size(choice)

    def with_weights(self, ended: bool = False) -> list[tuple[Architecture, int | None, int | None]]:
        """Architectures, image sizes and seeds whose weights are kept; a seed is None where it is the search's.

        Those of who leads, of the front, of what is being trained, and until the search has ended of all finalists by
        now.

        Args:
            ended: whether it has.
        """
        front = self.front()[::-1][: self.config.keep_checkpoints]
        kept = [(c, seed) for c in self.leaders().all() for seed in self.seeds_of(c)]
        if not ended:
            candidates, config = self.candidates(), self.config
            # Those that are finalists in the end are so among those that were scored by now.
            now = finalists(candidates, config.finalists, config.keep_accuracy, self.space.measure)
            trained = [c for c in candidates if c.by_seed]
            kept += [(c, seed) for c in [*now, *trained] for seed in self.seeds_of(c)]
        kept += [(c, self.best_seed(c)) for c in front]
        running = [
            (self.space.architecture(t.params), self.space.img_size(t.params), t.user_attrs.get("seed"))
            for t in self.record.running
        ]
        found = [*[(*self.parts(c), seed) for c, seed in kept], *running]
        return [(built, size, None if seed == self.config.seed else seed) for built, size, seed in found]

    def seeds_of(self, candidate: Candidate) -> tuple[int, ...]:
        """The seeds that a candidate was trained with."""
        return tuple(candidate.by_seed) or (self.config.seed,)

    def best_seed(self, candidate: Candidate) -> int:
        """The seed whose weights are handed on: that of the highest validation accuracy, of equals the first."""
        by_seed = candidate.by_seed
        return max(by_seed, key=lambda seed: by_seed[seed]) if by_seed else self.config.seed

    def results(self, importance: bool = True) -> Results:
        """Everything that the report shows; how much each site matters takes longer than all the rest."""
        config, space, record, candidates, now = self.config, self.space, self.record, self.candidates(), self.leaders()
        macs = next((limit for limit in space.limits if limit.measure == "macs"), None)
        pairs = [(c.accuracy, c.mean) for c in candidates if c.accuracy is not None and c.mean is not None]
        tested = record.notes("test_accuracy")
        return Results(
            base=config.base,
            dataset=self.contents.data["dataset"],
            recipe=self.contents.recipe_name,
            command=hide_password(config.command),
            seed=config.seed,
            budget=config.budget_text,
            budget_macs=None if macs is None else int(macs.most),
            base_macs=space.base_macs,
            blocks=space.blocks,
            candidates=tuple(candidates),
            best=now.best.number if now.best else None,
            best_drops_only=now.best_drops_only.number if now.best_drops_only else None,
            pair=(now.pooled.number, now.unpooled.number) if now.pooled and now.unpooled else None,
            test_accuracy={number: self._by_seed(accuracy) for number, accuracy in tested.items()},
            held_out=self.contents.data["images"][1],
            evaluator=config.evaluator,
            limits=space.limits,
            keep_accuracy=config.keep_accuracy,
            importance=site_importance(record) if importance else {},
            sensitivity=record.get("sensitivity") or {},
            measured_latency=record.notes("latency"),
            agreement=kendall_tau(pairs) if config.evaluator == "supernet" else None,
            commands=self._commands(),
        )

    def _by_seed(self, noted: Any) -> dict[int, float]:
        """Accuracies by seed as they are noted; a study of before has that of its one seed."""
        if not isinstance(noted, dict):
            return {self.config.seed: noted}
        return {int(seed): accuracy for seed, accuracy in noted.items()}

    def write(self, importance: bool = True) -> Results:
        """Write the tables and the report, and return what they show; see :meth:`results`.

        Raises:
            CommandError: the output folder can't be written.
        """
        try:
            with folder_lock(self.output):
                self.record.sync()
                results = self.results(importance)
                write_tables(results, self.output)
        except OSError as error:
            raise CommandError(
                f"output {str(self.output)!r} can't be written: {error.strerror or one_line(error)}; make room, or "
                "copy the folder to where you may write"
            ) from error
        return results

    def _commands(self) -> dict[str, str]:
        """Commands to go on with, by what they do."""
        output, best = self.output, self.output / "best"
        if self.config.evaluator == "sensitivity":
            return {}
        return {
            "Go on after a stop, or with more trials": f"cp-search resume {output} --trials {self.config.trials}",
            "Write any candidate as a model folder": f"cp-search export {output} NUMBER",
            "Train the winner again": f"cp-train {best / 'recipe.yaml'} --output {output}-best",
            "Score the winner": f"cp-train {best / 'recipe.yaml'} --eval {best}",
        }


def write_tables(results: Results, output: Path) -> None:
    """Write ``pareto.csv``, ``results.json`` and ``report.html``.

    The table has a row per candidate; lists are separated by blanks. ``latency_ms`` is measured on the whole model,
    ``predicted_latency_ms`` is the sum over its parts that a budget of latency goes by. ``accuracy`` is the first
    score, ``mean_accuracy`` that of a finalist over its ``seeds``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    front = pareto_front(results.candidates, results.measure)
    for c in results.candidates:
        error = standard_error(c, results)
        known = (results.measured_latency.get(c.number), c.latency, c.accuracy, c.mean, error)
        figures = ["" if figure is None else repr(figure) for figure in known]
        settings = [c.settings.get(name, "") for name in ("mode", "support_range", "img_size")]
        row = [
            c.number,
            " ".join(c.pools),
            " ".join(c.drops),
            *settings,
            c.macs,
            c.params,
            *figures,
            len(c.by_seed) or 1,
            c.state,
        ]
        writer.writerow([*row, int(c.number in front), f"{c.seconds:.1f}", c.reason])
    write_text(output / "pareto.csv", text.getvalue())
    write_text(output / "results.json", json.dumps(summarize(results), indent=2) + "\n")
    write_report(results, output / "report.html")
    if results.sensitivity:
        lines = [f"{name},{lost!r}" for name, lost in results.sensitivity.items()]
        write_text(output / "sensitivity.csv", "\n".join(["block,points_lost", *lines, ""]))
        write_text(output / "sensitivity.svg", render_sensitivity_svg(results))
