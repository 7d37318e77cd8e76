"""Running a search in this process: what is tried next, and who leads."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from cp_vision.command_line import CommandError
from cp_vision.errors import UserError, one_line

from .evaluate import Evaluator, OnEpoch
from .proposals import Key, Proposer, key_of, starting_points, without_pools
from .record import Record
from .results import Candidate
from .space import Choice

__all__ = ["Leaders", "Observer", "leaders", "run_trials"]


@dataclass(frozen=True)
class Leaders:
    """The candidates that have a role; None where there is none yet.

    Attributes:
        base: no pools, no drops. It sets the scale; where it is over the budget it can't win.
        best: the most accurate within the budget, the cheaper of equals.
        best_drops_only: the same among those that drop blocks and don't pool.
    """

    base: Candidate | None
    best: Candidate | None
    best_drops_only: Candidate | None

    def all(self) -> list[Candidate]:
        """Those that there are, each once."""
        found = [c for c in (self.best, self.base, self.best_drops_only) if c is not None]
        return [c for i, c in enumerate(found) if c not in found[:i]]


def leaders(candidates: Iterable[Candidate], budget: int) -> Leaders:
    """Find who leads.

    Args:
        candidates: finished candidates.
        budget: the budget in MACs.
    """
    complete = [c for c in candidates if c.accuracy is not None]
    within = [c for c in complete if c.macs <= budget]

    def first(those: list[Candidate]) -> Candidate | None:
        return min(those, key=lambda c: (-(c.accuracy or 0.0), c.macs, c.number), default=None)

    return Leaders(
        base=first([c for c in complete if c.is_base]),
        best=first(within),
        best_drops_only=first([c for c in within if c.drops_only]),
    )


class Observer:
    """Is told how a search goes on. This one does nothing with it."""

    def on_begin(self, finished: int) -> None:
        """The search begins, with so many candidates in the record."""

    def on_start(self, choice: Choice) -> OnEpoch:
        """A candidate is about to be trained; returns what to call after each of its epochs."""
        return lambda epoch, epochs, loss: None

    def on_finish(self, candidate: Candidate, now: Leaders) -> None:
        """A candidate was trained or has failed."""


def run_trials(
    record: Record,
    proposer: Proposer,
    evaluator: Evaluator,
    trials: int,
    observer: Observer,
) -> int:
    """Try candidates until the record holds as many as asked for.

    First the base and a few candidates that only drop; then what the sampler proposes. When a candidate with
    pools takes the lead, the same drops without pools come next, also beyond the number of trials, so that it
    is known what the winner's pools bring.
    What the record already holds is answered from it: a search that is started again goes through the same
    steps, without training, to where it was.

    Args:
        record: what was tried.
        proposer: where candidates come from.
        evaluator: how they are scored.
        trials: how many to try, the base included.
        observer: is told of each candidate that is trained.

    Returns:
        How many were tried: fewer than asked for where no new candidate within the budget is left.
    """
    space, budget = record.space, record.budget
    queue: deque[dict[str, str]] = deque(starting_points(space, budget))
    tried: dict[Key, Candidate] = {}
    twin: dict[str, str] | None = None
    while twin is not None or len(tried) < trials:
        choice = twin or (queue.popleft() if queue else proposer.propose(tried))
        twin = None
        if choice is None:
            break
        if key_of(choice) in tried:
            continue
        candidate = record.find(choice) or _try(record, evaluator, choice, observer)
        tried[key_of(choice)] = candidate
        proposer.learn(choice, candidate.accuracy)
        if candidate.pools and candidate.drops and candidate == leaders(tried.values(), budget).best:
            twin = without_pools(choice)
    return len(tried)


def _try(record: Record, evaluator: Evaluator, choice: dict[str, str], observer: Observer) -> Candidate:
    """Train one candidate and record it."""
    is_base = choice == record.space.choice()
    if not is_base and record.space.excess(choice, record.budget) > 0:
        raise CommandError(f"a candidate over the budget was about to be trained: {choice}")
    began = time.monotonic()
    try:
        score = evaluator(record.space.architecture(choice), observer.on_start(choice))
        accuracy, params, reason = score.accuracy, score.params, ""
        if not math.isfinite(accuracy):
            raise RuntimeError(f"the score is {accuracy}")
    except UserError:
        raise
    except Exception as error:
        # Out of memory, a loss that is not finite, images that can't be read: recorded with its reason, and the
        # search goes on.
        reason = one_line(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {one_line(error)}"
        if is_base:
            raise CommandError(f"the base itself can't be trained: {reason}") from error
        accuracy, params = None, 0
    candidate = record.add(choice, accuracy=accuracy, params=params, seconds=time.monotonic() - began, reason=reason)
    observer.on_finish(candidate, leaders(record.candidates(), record.budget))
    return candidate
