"""Keys are argument names of timm's train.py."""

from pathlib import Path

from cp_vision.recipes import Recipe

# timm's script takes no notice of keys that it doesn't know.
OURS = {"drop_path_uniform"}


def test_every_key_is_one_of_timms():
    version, *lines = Path(__file__).with_name("timm_train_arguments.txt").read_text().splitlines()
    assert version.startswith("# ")
    known = " ".join(lines).split()
    assert set(Recipe.model_fields) - set(known) == OURS
    assert len(known) == len(set(known))
