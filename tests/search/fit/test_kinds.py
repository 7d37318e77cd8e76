"""What is offered for a place: by what it is, and how much of its middle could stay."""

from types import SimpleNamespace

import pytest

from cp_vision.search.fit.kinds import DEFAULT_KINDS, kinds_of

# Name, whether it adds to its input itself, parts of its middle, and of which kinds how much may stay. With the number
# of heads that can be thinned comes that of the channels of each.
THIN = {"thin heads/8": 8, "thin heads/4": 16, "thin heads/2": 32}
MLP = {"units 0.25C": 16, "units 0.5C": 32, "units 1C": 64, "units 2C": 128}
ALONE = {"units 0.5C alone": 32, "units 1C alone": 64, "units 2C alone": 128}
CASES = [
    ("blocks.0.attn", False, 0, {}),
    ("blocks.0.attn", False, 1, {}),
    ("blocks.0.attn", False, 2, {"heads/6": 1}),
    ("blocks.0.attn", False, 3, {"heads/6": 1, "heads/2": 2}),
    ("blocks.0.attn", False, 6, {"heads/6": 1, "heads/3": 2, "heads/2": 3}),
    ("blocks.0.attn", False, (6, 64), THIN),
    ("blocks.0.attn", False, (6, 4), {"thin heads/4": 1, "thin heads/2": 2}),
    ("encoder.layers.encoder_layer_0.self_attention", False, 12, {"heads/6": 2, "heads/3": 4, "heads/2": 6}),
    ("blocks.0.mlp", False, 256, MLP | ALONE),
    ("blocks.0.mlp", False, 64, {"units 0.25C": 16, "units 0.5C": 32, "units 0.5C alone": 32}),
    ("blocks.3.1", True, 384, MLP),
    ("blocks.3.1", True, 0, {}),
    ("layer1.1", True, 64, {"channels/8": 8, "channels/4": 16, "channels/2": 32}),
    ("layer1.1", True, 16, {"channels/8": 2, "channels/4": 4, "channels/2": 8}),
    ("layer1.1", True, (4, 16), {"channels/8": 16, "channels/2": 32}),
    ("layer1.1", True, (1, 64), {}),
    ("blocks.3.1", True, (6, 64), {"units 0.25C": 64, "units 2C": 128}),
]


PARTS = ("heads", "head_channels", "units", "channels")


@pytest.mark.parametrize(("name", "residual", "parts", "kept"), CASES)
def test_how_much_may_stay(name, residual, parts, kept):
    """Of filters in groups of some channels, whole groups."""
    parts, size = parts if isinstance(parts, tuple) else (parts, 1)
    channels, size = (size, 1) if "att" in name and size > 1 else (0, size)
    place = SimpleNamespace(
        name=name, residual=residual, parts=parts, part_size=size, channels=64, head_channels=channels
    )
    options = {kind.name: kind.options(place) for kind in kinds_of(DEFAULT_KINDS)}
    found = {
        kind: value
        for kind, own in options.items()
        for part, value in (own or {}).items()
        if part == ("head_channels" if kind.startswith("thin") else part) and part in PARTS
    }
    assert found == kept
    half = name.rpartition(".")[2]
    # A pool explains nothing of an MLP half that a map doesn't.
    assert (options["pool/3"] is None) == (half == "mlp")
