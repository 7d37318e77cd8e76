"""Where candidates come from: an Optuna sampler that learns what is over the budget, and fixed starting points."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator, Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from cp_vision.errors import UserError, closest

from .space import DROP, KEEP, POOL, Choice, Space

__all__ = ["SAMPLERS", "Key", "Proposer", "check_sampler", "key_of", "starting_points", "without_pools"]

Key = tuple[tuple[str, str], ...]

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "nsgaii": lambda seed: NSGAIISampler(population_size=20, seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}

# So many proposals in a row may be refused, over the budget or tried before, until the last is repaired.
_REFUSALS = 10
_REPAIRS = 1000


def key_of(choice: Choice) -> Key:
    """A hashable value that is equal for equal choices."""
    return tuple(sorted(choice.items()))


def distributions(choices: Mapping[str, tuple[str, ...]]) -> dict[str, BaseDistribution]:
    """The choices as Optuna's distributions."""
    return {name: CategoricalDistribution(allowed) for name, allowed in choices.items()}


def without_pools(choice: Choice) -> dict[str, str]:
    """The same drops without any pool."""
    return {name: KEEP if value == POOL else value for name, value in choice.items()}


def starting_points(space: Space, budget: int) -> list[dict[str, str]]:
    """The base itself, then up to three ways to meet the budget by dropping alone.

    Blocks, one at least, are left out from the end, from the start, and spread evenly, until the budget is met. So the
    race always holds candidates that drop and don't pool.
    """
    names = [block.name for block in space.blocks if block.droppable]
    # Every other, then the remaining ones: any prefix of this order is spread over the depth.
    spread = [names[i] for step in (0, 1) for i in range(step, len(names), 2)]
    points = [space.choice()]
    for order in (names[::-1], names, spread):
        for count in range(1, len(names) + 1):
            choice = space.choice(drops=order[:count])
            if space.excess(choice, budget) <= 0:
                if choice not in points:
                    points.append(choice)
                break
    return points


def check_sampler(sampler: str) -> None:
    """Raise a UserError that names the samplers unless ``sampler`` is one."""
    if sampler not in SAMPLERS:
        raise UserError(f"sampler {sampler!r} is not one of {', '.join(SAMPLERS)}{closest(sampler, SAMPLERS)}")


class Proposer:
    """Asks an Optuna sampler for candidates within the budget.

    The sampler lives in memory; what it is told is replayed from the record when a search goes on, so it
    proposes the same again. Candidates over the budget are told to it as infeasible and come no further. Where
    it insists on those, or on what was tried before, its last proposal is changed in a few places at random,
    and repaired: pools are taken away and blocks dropped until the budget is met.

    Args:
        space: the search space.
        budget: the budget in MACs.
        sampler: a name in :data:`SAMPLERS`.
        seed: seed of the sampler and of the repairs.

    Raises:
        UserError: an unknown sampler.
    """

    def __init__(self, space: Space, budget: int, sampler: str, seed: int) -> None:
        check_sampler(sampler)
        self.space, self.budget = space, budget
        self.refused = 0
        self._choices = space.choices(budget)
        self._distributions = distributions(self._choices)
        self._random = random.Random(seed)  # noqa: S311 - no secret depends on it
        self._study = optuna.create_study(directions=["maximize", "minimize"], sampler=SAMPLERS[sampler](seed))
        self._open: dict[Key, Trial] = {}

    def propose(self, tried: Container[Key]) -> dict[str, str] | None:
        """Propose a candidate within the budget that was not tried before.

        Args:
            tried: the keys of all candidates that were tried.

        Returns:
            The candidate, or None when no new one was found.
        """
        for _ in range(_REFUSALS):
            trial = self._study.ask(self._distributions)
            choice: dict[str, str] = dict(trial.params)
            excess = self.space.excess(choice, self.budget)
            trial.set_constraint("macs", excess)
            if excess > 0:
                self.refused += 1
                self._study.tell(trial, [0.0, self.space.macs(choice)])
                continue
            if key_of(choice) not in tried:
                self._open[key_of(choice)] = trial
                return choice
            # It has been told of this candidate already; once more would only count it twice.
            self._study.tell(trial, state=TrialState.FAIL)
        for repaired in self._repairs(choice):
            if key_of(repaired) not in tried:
                return repaired
        return None

    def learn(self, choice: Choice, accuracy: float | None) -> None:
        """Tell the sampler what came of a candidate, proposed or not; None where its training failed."""
        trial = self._open.pop(key_of(choice), None)
        if trial is None:
            self._study.enqueue_trial(dict(choice))
            trial = self._study.ask(self._distributions)
            trial.set_constraint("macs", self.space.excess(choice, self.budget))
        if accuracy is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, [accuracy, self.space.macs(choice)])

    def _repairs(self, choice: dict[str, str]) -> Iterator[dict[str, str]]:
        blocks = {block.name: block for block in self.space.blocks}
        for _ in range(_REPAIRS):
            choice = {
                name: self._random.choice(allowed) if self._random.random() < 0.2 else choice[name]
                for name, allowed in self._choices.items()
            }
            repaired = dict(choice)
            order = list(repaired)
            for cheaper in (KEEP, DROP):
                self._random.shuffle(order)
                for name in order:
                    if self.space.excess(repaired, self.budget) <= 0:
                        break
                    if cheaper == KEEP and repaired[name] == POOL:
                        repaired[name] = KEEP
                    elif cheaper == DROP and blocks[name].droppable and repaired[name] == KEEP:
                        repaired[name] = DROP
            if self.space.excess(repaired, self.budget) <= 0:
                yield repaired
