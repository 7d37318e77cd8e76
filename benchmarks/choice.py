"""How the choice under a budget does, beside the ways that would make it unnecessary, at equal numbers of real scores.

    python benchmarks/choice.py --data-dir DIR

On the ViT that was trained on Fashion-MNIST (its weights are made where ``DIR`` lacks them): the best divergence from
the base after so many real scores, within several budgets. Our choice (the exact best of an additive table that each
real score corrects) and the table alone give the same every time; greedy replaces one place after the other by real
scores; Optuna's TPE and random candidates are drawn with several seeds. A space of whole blocks alone is small enough
to be searched as a whole. Writes ``results/choice.md``. A quarter of an hour of a core.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import datetime
import math
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna

from benchmarks.fashion_mnist import fill, open_split
from benchmarks.fashion_models import trained_on_fashion
from benchmarks.replacement_report import table
from cp_vision.search.fit.explore import explore
from cp_vision.search.fit.front import all_candidates
from cp_vision.search.fit.images import Images
from cp_vision.search.fit.kinds import DEFAULT_KINDS, kinds_of
from cp_vision.search.fit.library import Library
from cp_vision.search.fit.option import Candidate, Option, saved_by
from cp_vision.search.fit.places import find_spots
from cp_vision.search.fit.workbench import Workbench
from cp_vision.shared.command_line import run_command

RESULTS = Path(__file__).parent / "results"
BUDGETS = (0.75, 0.5, 0.3)
COUNTS = (12, 48, 192)
SEEDS = range(3)

Score = Callable[[Candidate], float]


class Counted:
    """Real scores; of each candidate the first time counts, and the best so far is kept.

    Args:
        score: of a candidate.
        known: what was scored for others, and costs no time here.
        most: how many may be asked for.
    """

    def __init__(self, score: Score, known: dict[Candidate, float], most: int) -> None:
        self._score, self._known, self._most = score, known, most
        self.asked: dict[Candidate, float] = {}

    def __call__(self, candidate: Candidate) -> float:
        if candidate not in self._known:
            self._known[candidate] = self._score(candidate)
        if len(self.asked) < self._most:
            self.asked.setdefault(candidate, self._known[candidate])
        return self._known[candidate]

    @property
    def done(self) -> bool:
        """Whether no more may be asked for."""
        return len(self.asked) >= self._most

    def best(self, saved: int) -> float:
        """The best of those that save enough."""
        return min((v for c, v in self.asked.items() if saved_by(c, "macs") >= saved), default=math.inf)


def ours(options: Sequence[Option], blocks: int, saved: int, scores: Counted, most: int, seed: int) -> None:
    """The corrected table; the first of its candidates is that of the plain one."""
    explore(options, blocks, saved, scores, most - 1)


def greedy(options: Sequence[Option], blocks: int, saved: int, scores: Counted, most: int, seed: int) -> None:
    """One change after the other, that which costs least for what it saves, by real scores."""
    taken: Candidate = ()
    while saved_by(taken, "macs") < saved and not scores.done:
        before = scores(taken) if taken else 0.0
        steps = []
        for option in options:
            if scores.done:
                break
            if (longer := _with(taken, option, blocks)) is not None:
                more = saved_by(longer, "macs") - saved_by(taken, "macs")
                if more > 0:
                    steps.append(((scores(longer) - before) / more, longer))
        if not steps:
            return
        taken = min(steps, key=lambda step: step[0])[1]


def drawn(options: Sequence[Option], blocks: int, saved: int, scores: Counted, most: int, seed: int) -> None:
    """Random candidates that save enough."""
    draw = random.Random(seed)
    while not scores.done:
        candidate = random_candidate(options, blocks, saved, draw)
        if candidate is not None:
            scores(candidate)


def random_candidate(options: Sequence[Option], blocks: int, saved: int, draw: random.Random) -> Candidate | None:
    """A candidate of random changes, one after the other until it saves enough; None where it never does."""
    return _filled((), options, blocks, saved, draw)


def tpe(options: Sequence[Option], blocks: int, saved: int, scores: Counted, most: int, seed: int) -> None:
    """Optuna's TPE over what begins at each block; what saves too little is filled up at random."""
    starting = {first: [None, *(o for o in options if o.first == first)] for first in range(blocks)}
    draw = random.Random(seed)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, most // 2)))
    # What it proposes again counts once.
    for _ in range(2 * most):
        if scores.done:
            return
        trial = study.ask()
        taken: Candidate = ()
        for first, choices in starting.items():
            for half in dict.fromkeys(o.half for o in choices if o is not None):
                own = [o for o in choices if o is not None and o.half == half]
                number = trial.suggest_int(f"{first}{half}", 0, len(own))
                if number and (longer := _with(taken, own[number - 1], blocks)) is not None:
                    taken = longer
        candidate = _filled(taken, options, blocks, saved, draw)
        if candidate is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        # A divergence of no numbers is the worst.
        study.tell(trial, math.log(min(max(scores(candidate), 1e-12), 1e6)))


METHODS = {"ours": ours, "greedy by real scores": greedy, "Optuna's TPE": tpe, "random": drawn}
_DRAWN = ("Optuna's TPE", "random")


def _with(taken: Candidate, option: Option, blocks: int) -> Candidate | None:
    """A candidate with one more change in the place of what it overlaps with; None where no block would stay."""
    others = [o for o in taken if o.stop <= option.first or o.first >= option.stop or {o.half, option.half} == _HALVES]
    longer = tuple(sorted([*others, option], key=lambda o: (o.first, o.half)))
    gone = {number for o in longer if not o.half for number in range(o.first, o.stop)}
    return longer if len(gone) < blocks else None


_HALVES = {"attn", "mlp"}


def _filled(
    taken: Candidate, options: Sequence[Option], blocks: int, saved: int, draw: random.Random
) -> Candidate | None:
    """A candidate with random changes more, until it saves enough."""
    for option in draw.sample(list(options), len(options)):
        if saved_by(taken, "macs") >= saved:
            return taken
        longer = _with(taken, option, blocks)
        if longer is not None and saved_by(longer, "macs") > saved_by(taken, "macs"):
            taken = longer
    return taken if saved_by(taken, "macs") >= saved else None


def rows(library: Library, counts: Sequence[int], exhaustive: bool) -> Iterator[list[str]]:
    """A row for each budget and method: the best divergence after so many real scores."""
    blocks, known = len(library.bench.blocks), dict[Candidate, float]()
    every = list(all_candidates(library.options, blocks)) if exhaustive else []
    for budget in BUDGETS:
        saved = library.base_costs["macs"] - int(budget * library.base_costs["macs"])
        for name, method in METHODS.items():
            cells = []
            for most in counts:
                found = []
                for seed in SEEDS if name in _DRAWN else range(1):
                    scores = Counted(library.score, known, most)
                    method(library.options, blocks, saved, scores, most, seed)
                    found.append(scores.best(saved))
                cells.append(_cell(found))
            yield [f"{budget}x", name, *cells]
            print(f"{budget}x, {name}: {', '.join(cells)}", flush=True)
        if exhaustive:
            all_of_it = Counted(library.score, known, len(every))
            for candidate in every:
                if saved_by(candidate, "macs") >= saved:
                    all_of_it(candidate)
            best = _cell([all_of_it.best(saved)])
            yield [f"{budget}x", f"the best of all {len(all_of_it.asked):,}", *[best] * len(counts)]
            print(f"{budget}x, all: {best}", flush=True)


def _cell(values: Sequence[float]) -> str:
    if not all(map(math.isfinite, values)):
        return "none"
    mean = statistics.mean(values)
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.2g}" if len(values) > 1 else ""
    return f"{mean:.3g}{error}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    data_dir = parser.parse_args(argv).data_dir
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fill(data_dir)
    model = trained_on_fashion("fashion_vit", data_dir)
    images = Images(open_split(data_dir, True)[0][:512], model, 512)
    bench = Workbench(model, images)
    lines = [
        f"# Choices under a budget ({datetime.datetime.now(datetime.UTC):%d %B %Y})\n",
        "`python benchmarks/choice.py --data-dir DIR`: the ViT trained on Fashion-MNIST, KL divergence from it on 128 "
        f"held-out images with stand-ins as they were fitted alone; of what is drawn the mean over {len(SEEDS)} seeds, "
        "± its standard error.\n",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        spaces = (
            ("All kinds at all places", 3, DEFAULT_KINDS, False),
            ("Whole blocks: kept, dropped, map, pool and map", 1, ("linear", "pool/3"), True),
        )
        for title, max_run, kinds, exhaustive in spaces:
            spots = find_spots(bench.model, max_run)
            if exhaustive:
                spots = [spot for spot in spots if not spot.half]
            library = Library(bench, spots, kinds_of(kinds), Path(scratch) / str(max_run))
            print(title, len(library.options), flush=True)
            heads = ["budget", "", *(f"{count} real scores" for count in COUNTS)]
            lines += [f"## {title}: {len(library.options)} options\n", *table(heads, rows(library, COUNTS, exhaustive))]
    (RESULTS / "choice.md").write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(run_command(main, None, "choice"))
