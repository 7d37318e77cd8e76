"""Where sites are, and what stands there."""

import pytest
import timm
import torch
from small_models import QUICK, base_of, close, images, small
from timm.models import get_model_input_config

import cp_vision
from cp_vision.anatomy.downsamplings import list_poolings
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.anatomy.sites import format_sites


@pytest.mark.parametrize("name", QUICK)
@torch.no_grad()
def test_sites_are_where_the_model_says(name):
    x = images()
    base = small(base_of(name))
    for site in cp_vision.find_sites(base, tuple(x.shape[1:])):
        seen = []
        place = site.name if site.kind != "downsample" or "stages" in site.name else site.name.rpartition(".")[0]
        module = base.get_submodule(place)
        handle = module.register_forward_hook(lambda m, a, y, seen=seen: seen.extend((a[0].shape, y.shape)))
        base(x)
        handle.remove()
        before, after = seen
        rows, columns = site.grid
        if site.kind != "block":
            assert before == (1, site.channels, rows, columns)
            assert after[2:] == (rows // 2, columns // 2)
        elif site.layout == "NCHW":
            assert after == (1, site.channels, rows, columns)
        elif site.layout == "NHWC":
            assert after == (1, rows, columns, site.channels)
        else:
            assert after == (1, rows * columns + base.num_prefix_tokens, site.channels)
        if site.droppable:
            assert before == after


@pytest.mark.parametrize("base", ["resnet18", "regnetx_002", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_a_model_whose_last_stages_were_cut_off(base):
    model = timm.create_model(base).eval()
    blocks, poolings = list_blocks(model), list_poolings(model)
    model.prune_intermediate_layers([1], prune_head=True)
    names = [block.name for block in list_blocks(model)]
    assert 0 < len(names) < len(blocks)
    assert names == [block.name for block in blocks[: len(names)]]
    left = [pooling.name for pooling in list_poolings(model)]
    assert left == [pooling.name for pooling in poolings[: len(left)]]
    x = torch.randn(1, *get_model_input_config(model)["input_size"])
    with torch.inference_mode():
        before = model(x)
        close(cp_vision.insert_pools(model, names)(x), before)


def test_sites_as_a_table():
    model = timm.create_model("cp_test_resnet", pools=["layer3.0", "maxpool"])
    sites = cp_vision.find_sites(model)
    heads, *rows = format_sites(sites).splitlines()
    assert heads.split() == ["site", "kind", "layout", "channels", "grid", "MACs", "drop"]
    assert [row.split()[0] for row in rows] == [site.name for site in sites]
    *_, rows = format_sites(sites, model).partition("\n")
    assert {row.split()[0] for row in rows.splitlines() if " yes, " in row} == {"layer3.0", "maxpool"}
