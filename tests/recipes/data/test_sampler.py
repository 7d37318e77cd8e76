"""Which images make up a batch, and how processes share it."""

from collections import Counter
from itertools import product

import pytest

from cp_vision import UserError
from cp_vision.recipes import Recipe
from cp_vision.recipes.data.sampler import Order


@pytest.mark.parametrize(
    ("steps", "counts", "mixup"), [*product((1, 2, 4), ((1, 2, 4),), (0.0, 0.2)), (6, (1, 2, 3, 6), 0.2)]
)
def test_processes_share_every_batch(steps, counts, mixup):
    recipe = Recipe(batch_size=8, grad_accum_steps=steps, mixup=mixup)
    images = 8 * steps * 3 + 5
    whole = [place for batch in Order(images, recipe) for place in batch]
    assert len({index for _, _, index in whole}) == len(whole) == 8 * steps * 3
    for count in counts:
        orders = [list(Order(images, recipe, rank, count)) for rank in range(count)]
        turns = {len(order) for order in orders}
        assert turns == {max(1, steps // count) * 3}
        for update in range(3):
            size = len(orders[0]) // 3
            shared = [p for order in orders for batch in order[update * size : (update + 1) * size] for p in batch]
            assert sorted(shared) == sorted(whole[update * 8 * steps : (update + 1) * 8 * steps])
        if mixup:
            # The first and the last of a batch are those that mix in the whole micro-batch.
            for batch in (batch for order in orders for batch in order):
                for one, other in zip(batch, reversed(batch), strict=True):
                    inside = [place[1] % (8 * steps) // steps for place in (one, other)]
                    assert sum(inside) == 7
                assert len({(place[1] // (8 * steps), place[1] % steps) for place in batch}) == 1


def test_an_order_is_a_new_permutation_each_epoch_and_repeats_images():
    recipe = Recipe(batch_size=8)
    order = Order(32, recipe)
    epochs = []
    for epoch in range(2):
        order.start(epoch)
        epochs.append([place[2] for batch in order for place in batch])
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(32))
    assert epochs[0] != epochs[1]
    order.start(1, 3)
    assert len(order) == 1
    assert [place[2] for batch in order for place in batch] == epochs[1][24:]
    repeated = [place[2] for batch in Order(32, recipe.with_values(aug_repeats=3)) for place in batch]
    assert len(repeated) == 32
    assert set(Counter(repeated).values()) <= {2, 3}
    for processes in (3, 16):
        with pytest.raises(UserError, match=rf"batch_size 8\b.* {processes} processes"):
            Order(32, recipe, 0, processes)
    with pytest.raises(UserError, match=r"batch_size 32 .*31 "):
        Order(31, recipe.with_values(batch_size=32))
