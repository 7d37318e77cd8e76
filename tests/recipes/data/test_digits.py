"""The bundled digits."""

import numpy as np

from cp_vision.recipes.data.digits import Digits


def test_digits_are_split_by_class_and_never_overlap():
    train_part, test_part = Digits(train=True), Digits(train=False)
    assert (len(train_part), len(test_part)) == (1437, 360)
    assert min(np.bincount(test_part.targets)) >= 34
    whole = {image.tobytes() for image in train_part.images}
    # The bundled set holds some images twice; they are few.
    assert sum(image.tobytes() in whole for image in test_part.images) <= 2
    image, label = test_part[0]
    assert image.mode == "L"
    assert image.size == (8, 8)
    assert 0 <= label < 10
