"""Names that timm builds: pretrained tags, and what building leaves alone."""

import pytest
import timm
import torch
from small_models import NAMES, build_meta
from timm.models import get_model_input_config, is_model_pretrained


def test_pretrained_tags_carry_over():
    assert is_model_pretrained("cp_resnet50.a1_in1k")
    model = build_meta("cp_resnet50.a1_in1k")
    assert model.pretrained_cfg["hf_hub_id"] == "timm/resnet50.a1_in1k"
    assert model.pretrained_cfg["tag"] == "a1_in1k"
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        build_meta("cp_resnet50.no_such_tag")


def test_the_promised_names_are_there():
    for base in (
        *("resnet18", "resnet50d", "resnext50_32x4d", "wide_resnet50_2", "regnety_016", "convnext_tiny"),
        *("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "deit3_small_patch16_224"),
        *(f"{kind}_{size}_patch16_224" for kind in ("vit", "deit") for size in ("tiny", "small", "base")),
    ):
        assert f"cp_{base}" in NAMES


def test_creating_a_pooled_model_leaves_timm_alone():
    torch.manual_seed(0)
    before = timm.create_model("resnet18").state_dict()
    timm.create_model("cp_resnet18")
    torch.manual_seed(0)
    model = timm.create_model("resnet18")
    assert list(model.state_dict()) == list(before)
    assert not any(module._forward_hooks for module in model.modules())
    assert get_model_input_config(model)["input_size"] == (3, 224, 224)


def test_weights_are_initialised_after_the_meta_device():
    with torch.device("meta"):
        model = timm.create_model("cp_test_vit")
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    model.init_weights()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
