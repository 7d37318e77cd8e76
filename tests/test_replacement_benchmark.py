"""The benchmark of stand-ins: every form is measured at every place, and stands in the report."""

import copy
import csv

import pytest
import torch
from small_models import images, small

from benchmarks.replacement import Left, _learned, _plain, measure
from benchmarks.replacement_kinds import register_rivals
from benchmarks.replacement_report import draw, read, tables
from cp_vision import fit_blocks, replace_blocks

PLACES = {"resnet18": ["layer1.1", "layer2.1"], "deit3_small_patch16_224": ["blocks.1.attn", "blocks.2.attn"]}


@pytest.fixture(autouse=True)
def rivals():
    register_rivals()


@pytest.mark.slow
@pytest.mark.parametrize("base", PLACES)
def test_every_form_is_measured_at_every_place(base, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.replacement._STEPS", 3)
    names = PLACES[base]
    teacher = small(base)
    rows = [*measure("net", teacher, images(24), "blocks", names, 16)]
    rows += measure("net", teacher, images(24), "learned", names, 16, _learned)
    forms = [*_plain(8), *_learned(8)]
    assert [(row.form, row.place) for row in rows] == [(form, name) for form in forms for name in names]
    assert all(row.images == 16 and 0 < row.macs < 1 and row.left > 0 for row in rows)
    assert all((row.prefix >= 0) == (base != "resnet18") for row in rows)
    with (tmp_path / "replacement_net.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([Left._fields, *rows])
    text = "\n".join(tables(read(tmp_path, "net")))
    assert all(f"| {form} |" in text for form in forms)
    draw(read(tmp_path, "net"), tmp_path / "plot.svg")
    assert "</svg>" in (tmp_path / "plot.svg").read_text()
    assert read(tmp_path, "other") == []


@pytest.mark.parametrize("kind", ["average", "average alone", "depthwise"])
@torch.no_grad()
def test_rivals_are_what_they_say(kind):
    teacher = small("resnet18")
    student = replace_blocks(copy.deepcopy(teacher), ["layer1.1"], kind=kind, rank=8)
    fit_blocks(student, teacher, images(16), recalibrate=False)
    block = student.get_submodule("layer1.1").stand_in
    x = images(2, channels=32, size=(16, 24))
    features = block.features(x)[0].mT.unflatten(2, (16, 24))
    mean = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=kind == "depthwise")
    torch.testing.assert_close(features[:, -32:], mean)
    assert features.shape[1] == (64 if kind == "average" else 32)
    expected = x + block.read_out(features.flatten(2).mT).mT.unflatten(2, (16, 24))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_filters_alone_leave_prefix_tokens_a_map_of_their_own():
    teacher = small("deit3_small_patch16_224")
    name = PLACES["deit3_small_patch16_224"][0]
    student = replace_blocks(copy.deepcopy(teacher), [name], kind="average alone")
    fit_blocks(student, teacher, images(16), recalibrate=False)
    block = student.get_submodule(name).stand_in
    x, prefix = images(2, channels=block.channels, size=(4, 5)), images(2, channels=1, size=(1, block.channels))[:, 0]
    of_grid, of_prefix = block.features(x, prefix)
    y, y_prefix = block(x, prefix)
    torch.testing.assert_close(y, block.read_out(of_grid).mT.unflatten(2, (4, 5)))
    torch.testing.assert_close(y_prefix, block.prefix_read_outs[0](of_prefix))
