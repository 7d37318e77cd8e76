"""Features taken from a traced graph, by timm's and torchvision's extractors: those that hooks on the model see."""

import pytest
import timm
import torch
from slow_cases import slow_unless
from small_models import FAMILIES, NAMES, QUICK, UNTRACEABLE, base_of, close, family_of, hooked, images, short, stir
from timm.models import FeatureGraphNet, create_feature_extractor
from torch import fx, nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor as torchvision_extractor

from cp_vision import ContextPool1d, ContextPool2d
from cp_vision.anatomy.downsamplings import list_poolings
from cp_vision.anatomy.known_families import list_blocks

# torchvision's word that stochastic depth is there in training alone.
pytestmark = pytest.mark.filterwarnings("ignore:NOTE.*nodes:UserWarning")

OF_EACH_FAMILY = [next(name for name in QUICK if family_of(name) == family) for family in FAMILIES]


@torch.no_grad()
def extracts(model, extractor, names, x):
    expected = hooked(model, names, x)
    features = extractor(model, names).eval()
    got = features(x)
    assert set(got) == set(names)
    assert pool_keys(features) == pool_keys(model)
    for name in names:
        close(got[name], expected[name])


def pool_keys(model):
    return {key for key in model.state_dict() if ".context_pool." in key}


def pools_of(model):
    return [path for path, module in model.named_modules() if isinstance(module, ContextPool2d)]


def traces(extractor, model):
    try:
        extractor(model, [list_blocks(model)[-1].name])
    except UNTRACEABLE:
        return False
    return True


@torch.no_grad()
def gives_features_by_graph(name, **pooling):
    """Whether an extractor takes the base; then it takes the pooled model, with the features that hooks see."""
    base = short(base_of(name))
    extractors = [one for one in (create_feature_extractor, torchvision_extractor) if traces(one, base)]
    model, x = stir(short(name, **pooling), 0.3), images(2)
    for extractor in extractors:
        extracts(model, extractor, [block.name for block in list_blocks(model)], x)
        extracts(model, extractor, pools_of(model), x)
    if create_feature_extractor in extractors:
        expected = hooked(model, [info["module"] for info in model.feature_info], x)
        features = FeatureGraphNet(model, tuple(range(len(model.feature_info))))
        for got, wanted in zip(features(x), expected.values(), strict=True):
            close(got, wanted)
    return bool(extractors)


@pytest.mark.parametrize("name", slow_unless({"cp_resnet18", "cp_vit_small_patch16_224"}, OF_EACH_FAMILY))
def test_a_model_of_each_family(name):
    assert gives_features_by_graph(name)


@pytest.mark.parametrize(
    "name", slow_unless({"cp_resnet18"}, ["cp_resnet18", "cp_resnetaa50", "cp_regnety_002", "cp_convnext_tiny"])
)
def test_strided_pools(name):
    sites = [pooling.name for pooling in list_poolings(short(base_of(name)))]
    assert gives_features_by_graph(name, pools=sites)


@pytest.mark.parametrize("name", ["cp_vit_small_patch16_224", "cp_swin_tiny_patch4_window7_224"])
def test_pools_before_attention(name):
    assert gives_features_by_graph(name, pool_options={"mode": "pre_attn"})


def test_images_of_any_size():
    model = stir(short("cp_vit_small_patch16_224", dynamic_img_size=True), 0.3)
    for size in ((64, 96), (96, 64)):
        extracts(model, create_feature_extractor, ["blocks.0", "blocks.1"], images(2, size=size))


@pytest.mark.parametrize(
    ("name", "mode"),
    slow_unless({"cp_resnet18"}, [("cp_resnet18", "gated"), ("cp_vit_b_32", "gated"), ("cp_vit_b_32", "pre_attn")]),
)
def test_models_of_torchvision(name, mode):
    model = stir(get_model(name, pool_options={"mode": mode}).eval(), 0.3)
    x = images(1, size=(224, 224))
    extracts(model, torchvision_extractor, [block.name for block in list_blocks(model)], x)
    extracts(model, torchvision_extractor, pools_of(model), x)


@torch.no_grad()
def test_features_only_takes_a_graph():
    args = {"features_only": True, "feature_cls": "fx", "out_indices": (1, 2, 3)}
    base, features = (timm.create_model(name, **args).eval() for name in ("test_resnet", "cp_test_resnet"))
    assert type(features) is type(base)
    assert not features.load_state_dict(base.state_dict(), strict=False).unexpected_keys
    assert pool_keys(features)
    assert features.feature_info.channels() == base.feature_info.channels()
    for got, wanted in zip(features(images()), base(images()), strict=True):
        close(got, wanted)
    outputs = features(images())
    assert any(not torch.equal(*pair) for pair in zip(stir(features)(images()), outputs, strict=True))


class Sequences(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.pool = nn.Linear(4, 6), ContextPool1d(6, mode="replace", stride=2)

    def forward(self, x, padding_mask):
        return self.pool(self.linear(x), padding_mask)


def test_a_pool_is_one_node_of_any_graph():
    model = Sequences()
    traced = fx.symbolic_trace(model)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["linear", "pool"]
    assert traced.state_dict().keys() == model.state_dict().keys()
    x, mask = torch.randn(2, 9, 4), torch.arange(9).expand(2, 9) > 5
    assert torch.equal(traced(x, mask), model(x, mask))


@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
def test_every_name(family):
    names = [name for name in NAMES if family_of(name) == family]
    traced = []
    for name in names:
        try:
            traced.append(gives_features_by_graph(name))
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    assert any(traced)
