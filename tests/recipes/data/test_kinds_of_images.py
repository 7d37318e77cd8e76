"""Kinds of image files."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from cp_vision.recipes import load_recipe, open_splits


def test_every_kind_of_image_is_read_and_grey_ones_of_16_bits_keep_their_greys(tmp_path):
    digit = (load_digits().images[0] * 15).astype(np.uint8)
    for split in ("train", "val"):
        (tmp_path / split / "zero").mkdir(parents=True)
        for kind in ("png", "jpg", "webp", "bmp", "tif"):
            Image.fromarray(digit).save(tmp_path / split / "zero" / f"8.{kind}", quality=100, lossless=True)
        Image.fromarray(digit.astype(np.uint16) * 257).save(tmp_path / split / "zero" / "16.png")
    for channels in (1, 3):
        for images in open_splits(load_recipe("default", [f"data_dir={tmp_path}", f"in_chans={channels}"])):
            assert len(images) == 6
            for image, _ in images:
                assert np.abs(np.asarray(image.convert("L"), int) - digit).max() <= 12  # JPEG loses a little
