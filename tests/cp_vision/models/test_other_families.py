"""Models of families without names of their own, by the generic name ``context_pooled``."""

import pytest
import timm
import torch
from small_models import close, stir
from timm.models import get_model_input_config, save_for_hf

import cp_vision
from cp_vision.anatomy.known_families import list_blocks

# A model of another family, and how its blocks hold their channels.
OTHERS = [
    ("test_efficientnet", "NCHW"),
    ("test_mambaout", "NHWC"),
    pytest.param("test_vit_relpos", "tokens", marks=pytest.mark.slow),
    pytest.param("test_byobnet", "NCHW", marks=pytest.mark.slow),
    pytest.param("test_nfnet", "NCHW", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("base", "layout"), OTHERS)
@torch.inference_mode()
def test_other_families_by_the_generic_name(base, layout, tmp_path):
    plain = timm.create_model(base, num_classes=5).eval()
    blocks = list_blocks(plain)
    assert layout in {block.layout for block in blocks}
    args = {"pools": [block.name for block in blocks], "num_classes": 5}
    model = timm.create_model("context_pooled", base=base, **args).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, *get_model_input_config(plain)["input_size"])
    close(model(x), plain(x))
    pools = [block.name for block in blocks[1:]]
    drops = [block.name for block in blocks[:1] if block.droppable]
    model = stir(timm.create_model("context_pooled", base=base, drops=drops, pools=pools, num_classes=5).eval())
    save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(x), model(x))
    assert (model(x) - plain(x)).abs().max() > 1e-6
    assert cp_vision.count_macs(model) == cp_vision.count_macs(loaded)
    assert {site.name for site in cp_vision.find_sites(plain)} == {block.name for block in blocks}


@pytest.mark.parametrize(("base", "layout"), OTHERS)
@torch.inference_mode()
def test_features_of_other_families(base, layout):
    """A family whose extractor rebuilds the model gets timm's general one, with the same features."""
    plain = timm.create_model(base, features_only=True).eval()
    pools = [block.name for block in list_blocks(timm.create_model(base))]
    model = timm.create_model("context_pooled", base=base, features_only=True, pools=pools).eval()
    body = model.model if hasattr(model, "model") else model
    keys = plain.state_dict()
    missing = body.load_state_dict({key.removeprefix("model."): value for key, value in keys.items()}, strict=False)
    assert not [key for key in missing.missing_keys if ".context_pool." not in key and not key.startswith("head")]
    x = torch.randn(1, *get_model_input_config(timm.create_model(base))["input_size"])
    for one, other in zip(model(x), plain(x), strict=True):
        close(one, other)
    assert model.feature_info.channels() == plain.feature_info.channels()
    assert model.feature_info.reduction() == plain.feature_info.reduction()


# Of timm 1.0.31: their blocks change the grid, take more than one, or are none.
REFUSED = {
    *("coat", "crossvit", "deepseek_vit", "densenet", "dla", "efficientvim"),
    *("gemma4_vit", "hiera", "inception_v3", "levit", "mlp_mixer", "mvitv2"),
    *("naflexvit", "nasnet", "pnasnet", "pvt_v2", "qwen3_vit", "rdnet"),
    *("selecsls", "tnt", "twins", "vgg", "xception", "xcit"),
}


@pytest.mark.nightly
# The meta device runs Sequencer's LSTM step by step, which takes minutes; cp_models is our own.
@pytest.mark.parametrize("module", [m for m in timm.list_modules() if m not in ("cp_models", "sequencer")])
def test_a_base_of_any_module_of_timms_works_or_says_why_not(module):
    name, told = timm.list_models(module=module)[0], ""
    with torch.device("meta"):
        try:
            model = timm.create_model("context_pooled", base=name)
        except cp_vision.UserError as error:
            told = str(error)
        if "no blocks to pool after by default" in told:
            # One that pools nowhere by default pools where it is told to.
            last = list_blocks(timm.create_model(name))[-1].name
            model, told = timm.create_model("context_pooled", base=name, pools=[last]), ""
    if told:
        assert "models are not supported: " in told
        assert "\n" not in told
        assert module in REFUSED
    else:
        assert cp_vision.find_sites(model)
