"""The batches of a training."""

import pytest
import torch
from digits_folder import digits, parts

MIXED = ["mixup=0.2", "cutmix=0.5", "reprob=0.3", "drop_path=0.2", "color_jitter=0.3", "hflip=0.5"]


@pytest.mark.parametrize("settings", [[], MIXED])
def test_batches_depend_on_their_place_alone(settings):
    seen = {}
    for workers in (0, 2):
        recipe = digits(*settings, f"workers={workers}")
        _, loader, _ = parts(recipe, images=512)
        for epoch, first in ((0, 0), (1, 0), (1, 6)):
            batches = list(loader.epoch(epoch, first))
            assert len(batches) == loader.updates - first
            for number, (images, targets) in enumerate(batches, first):
                one = seen.setdefault((epoch, number), (images, targets))
                assert torch.equal(one[0], images)
                assert torch.equal(one[1], targets)
    assert not torch.equal(seen[0, 3][0], seen[1, 3][0])


def test_mixing_ends_where_the_recipe_says():
    _, loader, _ = parts(images=512, recipe=digits("mixup=0.2", "mixup_off_epoch=1", "smoothing=0", "workers=1"))
    for epoch in (0, 1):
        # Also for workers that are there since the first epoch.
        mixed = any(((targets > 0) & (targets < 1)).any() for _, targets in loader.epoch(epoch))
        assert mixed is (epoch == 0)
