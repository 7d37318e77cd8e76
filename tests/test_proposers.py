"""What a search that goes on is told, and what it proposes then."""

import dataclasses

import pytest
from fakes import FakeEvaluator

from cp_vision import Architecture
from cp_vision.search import measure_space, parse_budgets
from cp_vision.search.guided import make_proposer
from cp_vision.search.samplers import sampler_names
from cp_vision.search.space import key_of
from cp_vision.search.strategy import starting_points


@pytest.fixture(scope="module")
def space():
    base = Architecture("test_vit", model_args={"img_size": 32, "patch_size": 8})
    found = measure_space(base, (3, 32, 32))
    return dataclasses.replace(found, limits=parse_budgets("0.6x", found.base_costs))


@pytest.mark.parametrize("sampler", sampler_names())
def test_whoever_is_told_the_same_proposes_the_same(sampler, space):
    """One that goes on is told of everything at once, of which the one that stopped had proposed most itself."""
    fake, told = FakeEvaluator(), []

    def tell(proposer, choice, refused):
        if key_of(choice) not in proposer.proposed:
            for values in refused:
                proposer.refuse(values)
        proposer.learn(choice, fake(space.architecture(choice), None, lambda *_: None).accuracy)

    first = make_proposer(space, sampler, 0)
    for choice in starting_points(space):
        tell(first, choice, [])
        told.append((choice, []))
    # Long enough for several generations.
    for count in range(len(told), 12 if sampler == "gp" else 60):
        tried = {key_of(choice): number for number, (choice, _) in enumerate(told)}
        proposed = first.propose(tried, count)
        if count % 11 == 0:
            other = make_proposer(space, sampler, 0)
            for choice, refused in told:
                tell(other, choice, refused)
            assert other.propose(tried, count) == proposed
        if proposed is None:
            break
        tell(first, *proposed)
        told.append(proposed)
