"""Samplers: within the budget, new, the same for the same study, and able to learn."""

import dataclasses
import random
from itertools import product

import optuna
import pytest
from fake_evaluator import FakeEvaluator, journal
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from cp_vision import Architecture, UserError
from cp_vision.search import Search, SearchConfig, measure_space, parse_budgets, register_sampler
from cp_vision.search.config.schema import SAMPLERS as NAMES
from cp_vision.search.config.space_options import load_space_options
from cp_vision.search.samplers.budget import ExhaustedError
from cp_vision.search.samplers.queue import starting_points, without_pools
from cp_vision.search.samplers.registry import SAMPLERS, make_sampler
from cp_vision.search.space.repair import BudgetRepair
from cp_vision.search.space.space import DROP, KEEP, POOL, genotype_key
from cp_vision.search.study.trials import distributions

BASES = {
    "test_vit": {"img_size": 32, "patch_size": 8},
    "test_vit2": {"img_size": 32, "patch_size": 8},
    "resnet18": {},
}


def space_of(base, budget, **options):
    space = measure_space(Architecture(base, model_args=BASES[base]), (3, 32, 32), load_space_options(options))
    limits = parse_budgets(budget, space.base_costs)
    return dataclasses.replace(
        space, limits=tuple(dataclasses.replace(x, most=max(x.most, space.least("macs"))) for x in limits)
    )


def new_study(sampler):
    return optuna.create_study(direction="maximize", sampler=sampler)


def add(study, space, choice, accuracy=None, state=TrialState.COMPLETE):
    values = [accuracy] if state == TrialState.COMPLETE else None
    study.add_trial(
        create_trial(state=state, values=values, params=choice, distributions=distributions(space.choices()))
    )


def ask(study, space):
    """What the sampler proposes, by Optuna's own way of asking."""
    return study.ask(distributions(space.choices()))


def fake(space, choice):
    return FakeEvaluator()(space.architecture(choice), None, lambda *_: None).accuracy


def test_the_command_line_names_those_that_there_are():
    assert tuple(SAMPLERS) == NAMES


MODES = {"modes": ["gated", "replace"], "max_pools": 1, "drops": ["blocks.[1-4]"]}


# Gaussian processes of Optuna's take seconds a proposal.
@pytest.mark.parametrize("sampler", [*(s for s in NAMES if s != "gp"), pytest.param("gp", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("objective", "keep", "budget", "options"),
    [("single", None, "0.6x", {}), ("pareto", 1.0, "0.6x", {}), ("pareto", None, "0.9x", MODES)],
)
def test_every_proposal_is_new_within_the_budget_and_the_same_for_the_same_study(
    sampler, objective, keep, budget, options
):
    """With modes to choose among, some choices are others under another name."""
    space = space_of("test_vit", budget, **options)
    study = new_study(make_sampler(sampler, space, 5, objective, keep))
    seen = {genotype_key(choice) for choice in starting_points(space)}
    for choice in starting_points(space):
        add(study, space, choice, fake(space, choice))
    # What failed, was stopped, or is being tried is not proposed again either.
    for state in (TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING):
        choice = ask(study, space).params
        assert genotype_key(choice) not in seen
        seen.add(genotype_key(choice))
        if state != TrialState.RUNNING:
            study.tell(study.trials[-1].number, state=state)
    for number in range(12 if sampler == "gp" else 15):
        if number % 7 == 0:
            # Another process, or a later one, has the trials and the seed alone.
            other = new_study(make_sampler(sampler, space, 5, objective, keep))
            other.add_trials(study.trials)
            expected = ask(other, space).params
        trial = ask(study, space)
        assert number % 7 or trial.params == expected
        assert space.excess(trial.params) <= 0
        assert trial.params == space.normal(trial.params)
        assert genotype_key(trial.params) not in seen
        seen.add(genotype_key(trial.params))
        study.tell(trial, fake(space, trial.params))


@pytest.mark.parametrize("sampler", ["surrogate", "tpe"])
def test_a_space_that_is_used_up_ends_the_proposals(sampler):
    # The budget of one block: six candidates, one for each block that stays.
    space = space_of("test_vit", "0.001x")
    study = new_study(make_sampler(sampler, space, 0))
    found = set()
    for _ in range(6):
        trial = ask(study, space)
        found.add(genotype_key(trial.params))
        study.tell(trial, 50.0)
    with pytest.raises(ExhaustedError):
        ask(study, space)
    assert len(found) == 6
    assert all(sum(value == DROP for _, value in key) == 5 for key in found)


def test_a_sampler_with_nothing_left_ends_the_search_as_any_other(tmp_path):
    small = {"base": "test_vit2", "model_kwargs": {"patch_size": 8, "depth": 2}, "budget": "2x", "trials": 20}
    for sampler in ("bruteforce", "random"):
        folder = tmp_path / sampler
        search = Search(SearchConfig(output=folder, sampler=sampler, storage=journal(folder), **small))
        results = search.run(evaluator=FakeEvaluator())
        # Each of two blocks as it is, pooled or left out, but for both left out.
        assert len(results.candidates) == 8
        assert {c.state for c in results.candidates} == {"complete"}
        assert search.exhausted


@pytest.mark.parametrize(("objective", "keep"), [("pareto", None), ("single", None), ("pareto", 1.0)])
def test_the_default_sampler_learns_what_sites_and_pairs_add(objective, keep):
    """In 40 trials of 6,561 candidates it finds one that the best hardly surpasses, or hardly undercuts."""
    space = space_of("test_vit2", "10x" if keep else "0.6x")
    worth = {name: (value % 5 - 1.0, -1.0 - value % 3) for value, name in enumerate(space.names)}

    def accuracy(choice):
        added = [worth[name][0 if choice[name] == POOL else 1] for name in space.names if choice[name] != KEEP]
        return 70.0 + sum(added) + 2.0 * (choice["blocks.1"] == choice["blocks.4"] == DROP)

    everything = [dict(zip(space.names, values, strict=True)) for values in product(*space.choices().values())]
    within = [choice for choice in everything if space.excess(choice) <= 0]
    floor = None if keep is None else accuracy(space.choice()) - keep
    good = [choice for choice in within if floor is None or accuracy(choice) >= floor]
    study = new_study(make_sampler("surrogate", space, 0, objective, keep))
    add(study, space, space.choice(), accuracy(space.choice()))
    for _ in range(39):
        trial = ask(study, space)
        study.tell(trial, accuracy(trial.params))
    found = [trial.params for trial in study.trials if trial.params in good]
    if keep is None:
        assert max(map(accuracy, found)) >= max(map(accuracy, good)) - 0.5
    else:
        assert min(map(space.macs, found)) <= 1.1 * min(map(space.macs, good))


@pytest.mark.parametrize("seed", range(2))
def test_where_depth_pays_what_is_proposed_lies_near_the_budget(seed):
    space = space_of("test_vit2", "0.7x")
    study = new_study(make_sampler("surrogate", space, seed))
    for choice in starting_points(space):
        add(study, space, choice, fake_depth(choice))
    proposed = []
    for _ in range(20):
        trial = ask(study, space)
        proposed.append(space.macs(trial.params) / space.limits[0].most)
        study.tell(trial, fake_depth(trial.params))
    assert sum(share > 0.9 for share in proposed) >= 16


def fake_depth(choice):
    """Blocks add, the first ones more, and pools a little."""
    values = list(choice.values())
    return 50.0 + sum((value != DROP) * (3 - i / 4) + 0.1 * (value == POOL) for i, value in enumerate(values))


@pytest.mark.parametrize("sampler", ["surrogate", "tpe"])
def test_accuracies_of_what_was_stopped_early_decide_nothing(sampler):
    """They are of fewer epochs than the others."""
    space, rng = space_of("test_vit2", "0.6x"), random.Random(3)
    choices = [space.choice()]
    while len(choices) < 24:
        choice = BudgetRepair(space).draw(rng)
        choices += [choice] if choice not in choices else []
    proposals = []
    for early in (5.0, 99.0):
        study = new_study(make_sampler(sampler, space, 0))
        for number, choice in enumerate(choices):
            if number % 3 == 2:
                study.add_trial(
                    create_trial(
                        state=TrialState.PRUNED,
                        value=early,
                        params=choice,
                        distributions=distributions(space.choices()),
                        intermediate_values={1: early},
                    )
                )
            else:
                add(study, space, choice, fake(space, choice))
        proposals.append(ask(study, space).params)
    assert proposals[0] == proposals[1]


def test_what_others_are_trying_is_not_proposed_under_another_name():
    """A running candidate counts as expected, so that its neighbours promise less."""
    space = space_of("test_vit2", "0.6x")
    alone, shared = (new_study(make_sampler("surrogate", space, 0, "single")) for _ in range(2))
    for choice in starting_points(space):
        for study in (alone, shared):
            add(study, space, choice, fake(space, choice))
    rng = random.Random(0)
    for _ in range(10):
        choice = BudgetRepair(space).draw(rng)
        for study in (alone, shared):
            add(study, space, choice, fake(space, choice))
    # Eight workers at once.
    found = [ask(shared, space).params for _ in range(8)]
    assert len({genotype_key(choice) for choice in found}) == 8


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("budget", ["0.3x", "0.7x", "1x", "2x"])
def test_starting_points_keep_the_budget_and_only_drop(base, budget):
    space = space_of(base, budget)
    first, *others = starting_points(space)
    assert first == space.choice()
    assert len({genotype_key(choice) for choice in others}) == len(others)
    assert others
    for choice in others:
        assert space.excess(choice) <= 0
        assert without_pools(choice) == choice


@pytest.mark.slow
def test_pools_stay_in_the_race_under_a_tight_budget():
    space = measure_space(Architecture("resnet50"), (3, 224, 224))
    space = dataclasses.replace(space, limits=parse_budgets("0.5x", space.base_costs))
    # Within the budget there are 736 candidates, 79 of them without a pool.
    study = new_study(make_sampler("random", space, 0))
    for _ in range(200):
        study.tell(ask(study, space), 50.0)
    assert sum(POOL in trial.params.values() for trial in study.trials) > 100


def test_thousands_of_repairs_are_within_the_budget():
    space = measure_space(Architecture("resnet50"), (3, 224, 224))
    space = dataclasses.replace(space, limits=parse_budgets("0.7x", space.base_costs))
    repair, rng = BudgetRepair(space), random.Random(0)
    drawn = [repair.draw(rng) for _ in range(3_000)]
    assert all(choice is not None and space.excess(choice) <= 0 for choice in drawn)
    assert len({genotype_key(choice) for choice in drawn}) > 900


def test_a_sampler_of_ones_own(tmp_path):
    seeds = []
    register_sampler("mine", lambda seed: seeds.append(seed) or RandomSampler(seed=seed))
    results = Search(SearchConfig(base="test_vit2", output=tmp_path, trials=8, sampler="mine")).run(
        evaluator=FakeEvaluator()
    )
    assert len(results.candidates) >= 8
    assert len(set(seeds)) == len(seeds) > 2
    with pytest.raises(UserError, match="'tpe'"):
        register_sampler("tpe", lambda seed: RandomSampler(seed=seed))
    with pytest.raises(UserError, match=r"'nsga' .*'nsgaii'"):
        make_sampler("nsga", space_of("test_vit2", "0.7x"), 0)
