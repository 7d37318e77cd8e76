"""What is said of accuracies holds as often as it should."""

import math
import random
from statistics import fmean

import pytest

from cp_vision.search.uncertainty import Spread, difference, seed_spread


def test_the_spread_is_pooled_over_models_and_their_means_are_not_in_it():
    spread = seed_spread([{0: 1.0, 1: 3.0}, {0: 91.0, 1: 93.0, 5: 95.0}, {3: 50.0}, {}])
    assert spread == Spread(math.sqrt((2 + 8) / 3), 3)
    assert seed_spread([{0: 1.0}, {}]) is None


@pytest.mark.parametrize(
    ("one", "other", "gain", "trainings"),
    [
        ({0: 90.0, 1: 92.0, 2: 94.0}, {0: 90.0, 1: 90.0, 2: 90.0}, 2.0, (3, 3)),
        # Over the seeds of both.
        ({0: 90.0, 1: 92.0}, {1: 91.0, 2: 99.0}, 1.0, (1, 1)),
        # Without one in common, of all.
        ({0: 90.0, 1: 92.0}, {7: 90.0}, 1.0, (2, 1)),
    ],
)
def test_a_difference_is_over_the_seeds_of_both(one, other, gain, trainings):
    found = difference(one, other, Spread(2.0, 8))
    assert found.gain == pytest.approx(gain)
    assert found.error == pytest.approx(2.0 * math.sqrt(sum(1 / n for n in trainings)))
    # The 97.5 % point of Student's t with 8 degrees of freedom.
    assert found.interval == pytest.approx(2.306 * found.error, rel=1e-3)
    assert difference(one, other, None).interval is None
    assert not difference(one, other, None).distinguishable


def test_intervals_hold_the_true_difference_in_19_of_20_searches():
    rng, held, errors = random.Random(0), 0, []
    for _ in range(2000):
        models = [{seed: true + rng.gauss(0, 0.8) for seed in range(3)} for true in (97.0, 96.5, 96.0, 95.0)]
        found = difference(models[0], models[1], seed_spread(models))
        held += abs(found.gain - 0.5) <= found.interval
        errors.append(found.error**2)
    assert 0.935 < held / 2000 < 0.965
    assert fmean(errors) == pytest.approx(2 * 0.8**2 / 3, rel=0.05)
