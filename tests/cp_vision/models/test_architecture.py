"""An architecture as a value: to JSON and back, its cost, its mistakes."""

import pytest
import timm

import cp_vision
from cp_vision import Architecture, UserError
from cp_vision.cost.macs import format_macs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Architecture("resnet_50").build(), "'resnet_50'.*'resnet50'"),
        (lambda: Architecture("test_vit", pools="blocks.1"), r"pools 'blocks\.1'"),
        (lambda: Architecture("test_vit", pools={"blocks.1": {}}), "pools {"),
        (lambda: Architecture("test_vit", pools=["blocks.1"], drops=["blocks.1"]).build(), r"'blocks\.1'"),
        (lambda: Architecture.from_json("{"), "JSON"),
        (lambda: Architecture.from_json('{"base": "test_vit", "depth": 3}'), "base, pools.*depth"),
        (lambda: Architecture.from_json("[]"), r"base, pools.*\[\]"),
        (lambda: Architecture.from_json('{"base": "test_vit", "pools": null}'), "pools None"),
        (lambda: Architecture.from_json('{"base": "test_vit", "pool_options": 3}'), "pool_options 3"),
        (lambda: Architecture("test_vit", model_args={"a": {1}}), "model_args {'a'"),
        (lambda: Architecture("cp_test_vit").build(), "'cp_test_vit'.*'test_vit'"),
        (
            lambda: Architecture("test_vit", ["blocks.1"], pool_options={"learned_weight": 5}).build(),
            "learned_weight.*5",
        ),
        (lambda: timm.create_model("cp_test_vit", pools={"blocks.1"}), r"{'blocks\.1'}.*'default'"),
        (lambda: timm.create_model("cp_test_vit", drops=iter(["blocks.1"])), "drops .*iterator"),
        (lambda: timm.create_model("context_pooled"), "base="),
        (lambda: timm.create_model("context_pooled", base="nothing_like_it"), "'nothing_like_it'"),
        (lambda: timm.create_model("cp_test_vit", pools="blocks.1"), r"'blocks\.1'.*'default'"),
    ],
)
def test_wrong_architectures(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_architecture_goes_to_json_and_back():
    one = Architecture(
        "test_vit", ["blocks.1"], ["blocks.2"], {"mode": "replace"}, {"img_size": (32, 32), "num_classes": 5}
    )
    two = Architecture.from_json(one.to_json())
    assert two == one
    assert hash(two) == hash(one)
    assert two.macs() == cp_vision.count_macs(one.build())
    assert one.macs() == Architecture("test_vit", model_args=one.model_args).macs() + (
        cp_vision.pool_macs(one.build().blocks[1].context_pool, (2, 2))
        - next(s.macs for s in cp_vision.find_sites(Architecture("test_vit", model_args=one.model_args).build()))
    )
    assert Architecture("resnet50").model_name == "cp_resnet50"
    assert Architecture("test_efficientnet").model_name == "context_pooled"


def test_an_architecture_as_text():
    one = Architecture("test_vit", ["blocks.1"], ["blocks.2"], {"mode": "replace"}, {"num_classes": 5})
    text = str(one)
    for part in ("test_vit, num_classes=5", "blocks.1, mode='replace'", "blocks.2", format_macs(one.macs())):
        assert part in text
    assert len(text.splitlines()) == 4
