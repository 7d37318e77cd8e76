"""Building on the meta device."""

import pytest
import timm
import torch

import cp_vision
from cp_vision.shared.on_meta import on_meta


@pytest.mark.parametrize("name", ["cp_test_vit2", "cp_resnet18", "cp_test_convnext"])
def test_models_are_those_of_the_meta_device(name):
    with torch.device("meta"):
        expected = timm.create_model(name)
    with on_meta():
        model = timm.create_model(name)
        inside = torch.zeros(3, device="cpu").add_(2.0).mul_(3.0)
    assert inside.tolist() == [6.0] * 3
    one, other = (
        [(key, value.shape, value.dtype, value.device) for key, value in one.state_dict().items()]
        for one in (model, expected)
    )
    assert one == other
    assert all(parameter.requires_grad and parameter.is_meta for parameter in model.parameters())
    assert cp_vision.count_macs(model) == cp_vision.count_macs(expected)
