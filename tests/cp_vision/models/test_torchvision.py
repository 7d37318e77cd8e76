"""The names in torchvision's registry."""

import os

import pytest
import torch
import torchvision
from small_models import close, images, stir
from torchvision.models.feature_extraction import create_feature_extractor

import cp_vision
from cp_vision.anatomy.known_families import list_blocks

TORCHVISION = [
    ("resnet18", {"num_classes": 5}, (64, 96), "maxpool"),
    ("resnext50_32x4d", {"num_classes": 5}, (64, 96), "layer3.0.downsample"),
    ("vit_b_32", {"image_size": 96, "num_classes": 5}, (96, 96), "encoder.layers.encoder_layer_3"),
]


@pytest.mark.parametrize(("base", "args", "size", "site"), TORCHVISION)
@torch.inference_mode()
def test_torchvision_models(base, args, size, site):
    torch.manual_seed(0)
    plain = torchvision.models.get_model(base, **args).eval()
    for parameter in plain.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    model = torchvision.models.get_model(f"cp_{base}", **args).eval()
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all(".context_pool." in key for key in missing)
    x = images(size=size)
    close(model(x), plain(x))
    drop = next(block.name for block in list_blocks(plain) if block.droppable)
    model = torchvision.models.get_model(f"cp_{base}", pools=[site], drops=[drop], **args).eval()
    sites = cp_vision.find_sites(model, (3, *size))
    assert site in {one.name for one in sites}
    assert drop not in {one.name for one in sites}
    if "vit" in base:
        modes = torchvision.models.get_model(f"cp_{base}", pool_options={"mode": "pre_attn"}, **args).eval()
        assert modes(x).shape == (1, 5)
    if "vit" not in base:
        stir(model, 0.3)
        leaves = {"leaf_modules": [cp_vision.ContextPool2d]}
        features = create_feature_extractor(model, ["flatten"], tracer_kwargs=leaves)
        close(model.fc(features(x)["flatten"]), model(x))


@pytest.mark.slow
@pytest.mark.parametrize(("base", "args", "size", "site"), TORCHVISION)
@torch.inference_mode()
def test_torchvision_models_are_exported(base, args, size, site):
    model = stir(torchvision.models.get_model(f"cp_{base}", pools=[site], **args).eval(), 0.3)
    x = images(size=size)
    close(torch.export.export(model, (x,)).module()(x), model(x), 1e-4)


def test_torchvisions_weights(tmp_path, monkeypatch):
    weights = torchvision.models.get_model_weights("cp_resnet18")
    assert weights is torchvision.models.ResNet18_Weights
    # torchvision takes a file of the right name for the download.
    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    os.makedirs(folder)
    torch.save(state, folder / weights.IMAGENET1K_V1.url.rpartition("/")[2])
    model = torchvision.models.get_model("cp_resnet18", weights="IMAGENET1K_V1")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    for wrong in ("V3", 3):
        with pytest.raises(cp_vision.UserError, match=rf"{wrong!r}.*IMAGENET1K_V1"):
            torchvision.models.get_model("cp_resnet18", weights=wrong)
