"""What a search may choose from: what is taken, and what is refused in one line."""

import pytest

from cp_vision import UserError
from cp_vision.search import SpaceOptions, load_space_options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("pools: blocks.1", {"pools": ("blocks.1",)}),
        ("drops: ['blocks.*', layer4]", {"drops": ("blocks.*", "layer4")}),
        ("modes: replace", {"modes": ("replace",)}),
        ("support_range: 1", {"support_range": (1.0,)}),
        ("img_size: [32, 64]", {"img_size": (32, 64)}),
        ("img_size: 4096\nmax_pools: 0", {"img_size": (4096,), "max_pools": 0}),
    ],
)
def test_files_and_mappings_say_the_same(text, expected, tmp_path):
    (tmp_path / "space.yaml").write_text(text)
    found = load_space_options(tmp_path / "space.yaml")
    assert found == SpaceOptions(**expected) == load_space_options(expected)
    assert load_space_options(found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("pool: 1", ["pool", "did you mean 'pools'"]),
        ("max_pools: true", ["max_pools", "True"]),
        ("max_pools: -1", ["max_pools", "-1"]),
        ("max_drops: '3'", ["max_drops", "'3'"]),
        ("pools: [1]", ["pools", "1"]),
        ("pools: {a: 1}", ["pools", "{'a': 1}"]),
        ("modes: soft", ["modes", "'soft'", "gated", "replace", "pre_attn"]),
        ("modes: [gated, gated]", ["modes", "gated"]),
        ("support_range: 0", ["support_range", "0"]),
        ("support_range: [.inf]", ["support_range", "inf"]),
        ("img_size: [100000]", ["img_size", "100000", "4096"]),
        ("img_size: [32, true]", ["img_size", "True"]),
        ("img_size: [32, 32]", ["img_size", "32"]),
        ("[pools]", ["pools"]),
        ("pools: [", ["YAML"]),
    ],
)
def test_what_is_refused_is_named_with_its_file(text, names, tmp_path):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_space_options(tmp_path / "space.yaml")
    assert all(name in str(caught.value) for name in [*names, "space.yaml"]), caught.value
    assert "\n" not in str(caught.value)
