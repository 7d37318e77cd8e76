"""A snapshot gives a model back as it was before surgery."""

import copy
import gc
import weakref

import pytest
import timm
import torch
import torchvision
from portrait import portrait
from slow_cases import slow_unless
from small_models import close, images, small
from torch.nn.utils import parametrizations

from cp_vision import Snapshot, UserError, drop_blocks, find_sites, insert_pools
from cp_vision.anatomy.block import has_pool
from cp_vision.anatomy.known_families import list_blocks

MODELS = {
    "vit": lambda: small("test_vit"),
    "vit of any size": lambda: small("test_vit", dynamic_img_size=True),
    "vit of any size with pools and a drop": lambda: small(
        "cp_test_vit", pools=["blocks.0", "blocks.2"], drops=["blocks.4"], dynamic_img_size=True
    ),
    "resnet": lambda: small("test_resnet"),
    "resnet that blurs": lambda: small("resnetblur50"),
    "resnet with pools": lambda: small("cp_test_resnet", pools=["layer1.0", "layer2.0.downsample"]),
    "swin": lambda: small("swin_tiny_patch4_window7_224"),
    "swin v2": lambda: small("swinv2_tiny_window8_256"),
    "convnext": lambda: small("convnext_tiny"),
    "regnet": lambda: small("regnety_002"),
    "unknown family": lambda: timm.create_model("test_efficientnet", num_classes=5).eval(),
    "torchvision resnet": lambda: torchvision.models.resnet18(num_classes=5).eval(),
    "torchvision vit": lambda: torchvision.models.VisionTransformer(64, 16, 4, 2, 32, 64, num_classes=5).eval(),
}


def size_for(model):
    return (64, 64) if isinstance(model, torchvision.models.VisionTransformer) else (64, 96)


def changes(model):
    """What surgery can do to a model, by name."""
    sites = [site for site in find_sites(model, (3, *size_for(model))) if not has_pool(model.get_submodule(site.name))]
    blocks = [site.name for site in sites if site.kind == "block"]
    strided = [site.name for site in sites if site.kind != "block"]
    drops = [site.name for site in sites if site.droppable][-2:][:1]
    pooled = [name for name in blocks if name not in drops]
    made = {
        "gated": lambda: insert_pools(model, blocks),
        "replace": lambda: insert_pools(model, blocks[:2], mode="replace"),
        "all": lambda: drop_blocks(insert_pools(model, [*pooled, *strided], mode="replace"), drops),
        **{site: lambda site=site: insert_pools(model, [site]) for site in strided},
    }
    if drops:
        made["drops"] = lambda: drop_blocks(model, drops)
    if any(block.attention for block in list_blocks(model)):
        made["pre_attn"] = lambda: insert_pools(model, blocks[-2:], mode="pre_attn")
    return made


FAST = ("vit", "vit of any size with pools and a drop", "resnet with pools", "swin", "unknown family")


@pytest.mark.parametrize("name", slow_unless(FAST, MODELS))
@torch.inference_mode()
def test_a_model_is_given_back_as_it_was(name):
    model = MODELS[name]()
    x = images(size=size_for(model))
    output, before = model(x), portrait(model)
    # An object that is gone could lend its number to another.
    alive = [dict(vars(module)) for module in model.modules()]
    for change in changes(model).values():
        outputs = []
        for _ in range(2):
            torch.manual_seed(1)
            with Snapshot(model):
                change()
                outputs.append(model(x))
                assert portrait(model) != before
            assert portrait(model) == before
            assert torch.equal(model(x), output)
        # After that surgery does what it did before.
        assert torch.equal(*outputs)
    assert alive


SURGERY = {
    "test_vit": lambda model: drop_blocks(insert_pools(model, ["blocks.1"], mode="pre_attn"), ["blocks.2"]),
    "test_resnet": lambda model: insert_pools(model, ["maxpool", "layer2.0.downsample", "layer3.0"]),
}


@pytest.mark.parametrize(("base", "change"), SURGERY.items())
@torch.inference_mode()
def test_hooks_of_the_users_own_survive_and_their_handles_remove_them(base, change):
    model, seen = small(base), []
    kinds = {"always_call": True, "with_kwargs": True}
    modules = [module for name, module in model.named_modules() if name.count(".") <= 1]
    kept, removed = (
        [module.register_forward_hook(lambda *args, what=what: seen.append(what), **kinds) for module in modules]
        for what in ("kept", "removed")
    )
    model(images())
    first, before = seen.copy(), portrait(model)
    with Snapshot(model):
        change(model)
        for handle in removed:
            handle.remove()
        late = model.register_forward_hook(lambda *args: seen.append("late"))
    assert portrait(model) == before
    seen.clear()
    model(images())
    assert seen == first
    late.remove()
    for handle in (*kept, *removed):
        handle.remove()
    seen.clear()
    model(images())
    assert not seen
    assert not any(module._forward_hooks_always_called or module._forward_hooks_with_kwargs for module in modules)


@pytest.mark.parametrize(("base", "change"), SURGERY.items())
def test_a_model_is_restored_after_an_error_and_more_than_once(base, change):
    model = small(base)
    before = portrait(model)

    def fail():
        with Snapshot(model):
            change(model.train())
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert portrait(model) == before
    snapshot = Snapshot(model)
    for _ in range(2):
        change(model)
        model.train()
        assert snapshot.restore() is model
        assert portrait(model) == before


def test_snapshots_within_snapshots_go_back_step_by_step():
    model = small("test_vit")
    with Snapshot(model):
        insert_pools(model, ["blocks.1"])
        pooled = portrait(model)
        with Snapshot(model):
            drop_blocks(model, ["blocks.2"])
            insert_pools(model, ["blocks.3"], hidden=3)
        assert portrait(model) == pooled
        assert model._model_args["pools"] == ["blocks.1"]
    assert "pools" not in model._model_args


def test_values_that_were_trained_in_between_stay():
    model = small("test_resnet")
    weights = dict(model.named_parameters())
    with Snapshot(model):
        insert_pools(model.train(), ["layer3.0", "maxpool"])
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model(images(2)).square().sum().backward()
        optimizer.step()
        trained = {key: value.clone() for key, value in model.state_dict().items() if ".context_pool." not in key}
    assert not model.training
    assert all(value is weights[key] for key, value in model.named_parameters())
    assert model.state_dict().keys() == trained.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, trained[key])
    assert not torch.equal(trained["bn1.running_mean"], small("test_resnet").bn1.running_mean)


def test_a_model_that_was_converted_in_between_stays_converted():
    model = small("swin_tiny_patch4_window7_224")
    resnet = small("test_resnet")
    with Snapshot(model), Snapshot(resnet):
        drop_blocks(model.double(), ["layers.1.blocks.1"])
        insert_pools(resnet.double().train(), ["layer3.0"])
        resnet(images(2).double())
        statistics = resnet.bn1.running_mean.clone()
    assert torch.equal(resnet.bn1.running_mean, statistics)
    assert resnet(images().double()).dtype == torch.float64
    assert {tensor.dtype for tensor in model.layers[0].buffers() if tensor.is_floating_point()} == {torch.float64}
    # What was taken out takes part in the next conversion.
    assert model.double()(images().double()).dtype == torch.float64


@torch.inference_mode()
def test_a_size_or_parametrization_set_in_between_is_undone():
    model, x = small("swin_tiny_patch4_window7_224"), images()
    output, before = model(x), portrait(model)
    with Snapshot(model):
        model.set_input_size(img_size=(96, 64))
        parametrizations.weight_norm(model.head.fc)
        model(images(size=(96, 64)))
    assert portrait(model) == before
    assert torch.equal(model(x), output)


@torch.inference_mode()
def test_copies_made_in_between_are_on_their_own():
    model, x = small("test_vit", dynamic_img_size=True), images()
    output = model(x)
    with Snapshot(model):
        other = copy.deepcopy(insert_pools(model, ["blocks.1"], mode="replace"))
        pooled = model(x)
    assert torch.equal(model(x), output)
    assert torch.equal(other(x), pooled)
    insert_pools(other, ["blocks.2"])
    assert torch.equal(model(x), output)


@torch.inference_mode()
def test_a_block_under_two_names_is_restored_under_both():
    model = small("test_vit")
    model.blocks[2] = model.blocks[1]
    model.last = model.blocks[5]
    output, before = model(images()), portrait(model)
    with Snapshot(model):
        drop_blocks(model, ["blocks.2"])
        insert_pools(model, ["blocks.5"])
        assert "last.context_pool.gate" in model.state_dict()
    assert portrait(model) == before
    assert torch.equal(model(images()), output)


def test_what_is_taken_out_lives_as_long_as_the_snapshot():
    model = small("test_vit")
    block = weakref.ref(model.blocks[2])
    snapshot = Snapshot(model)
    drop_blocks(model, ["blocks.2"])
    gc.collect()
    assert block() is not None
    del snapshot
    gc.collect()
    assert block() is None


@pytest.mark.parametrize("compiled", ["model", "blocks before", "blocks after"])
@torch.no_grad()
def test_models_compiled_in_place_are_restored(compiled):
    torch._dynamo.reset()
    model, x = small("test_vit"), images()
    plain = copy.deepcopy(model)
    if compiled == "blocks before":
        for block in model.blocks:
            block.compile(backend="eager")
    output = model(x)
    with Snapshot(model):
        insert_pools(model, ["blocks.1", "blocks.2"], mode="replace", support_range=2.0)
        drop_blocks(model, ["blocks.3"])
        for part in {"model": [model], "blocks before": [], "blocks after": list(model.blocks)}[compiled]:
            part.compile(backend="eager")
        pooled = model(x)
        close(pooled, copy.deepcopy(model)(x))
        assert (pooled - output).abs().max() > 1e-3
    close(model(x), plain(x))


def test_what_is_no_module_is_named():
    with pytest.raises(UserError, match="'test_vit'"):
        Snapshot("test_vit")
