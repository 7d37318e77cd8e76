"""The benchmark of the paper's form: what stands where, that it goes on from its table, and what its report says."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from benchmarks import paper_form
from benchmarks.paper_form_cases import FAMILIES, build
from benchmarks.paper_form_learned import DRAWN, learned
from benchmarks.paper_form_report import difference, write_report
from cp_vision import ContextPool2d, count_macs

PLACES = {
    "vit-4": ["blocks.0", "blocks.1", "blocks.2"],
    "resnet": ["maxpool", "layer2.0.downsample.0", "layer3.0.downsample.0", "layer4.0.downsample.0"],
}


def made(name, form):
    torch.manual_seed(0)
    return build(FAMILIES[name], FAMILIES[name].forms[form]).eval()


def macs(name, form):
    return count_macs(made(name, form), (1, FAMILIES[name].size, FAMILIES[name].size))


@pytest.mark.parametrize("name", PLACES)
def test_pools_stand_where_the_paper_has_them_and_rivals_in_their_place(name):
    pools = {site.removesuffix(".context_pool"): m for site, m in made(name, "pools").named_modules() if ispool(m)}
    assert list(pools) == PLACES[name]
    assert {pool.mode for pool in pools.values()} == {"replace"}
    rival = made(name, "depthwise 3x3")
    convolutions = [m for m in rival.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [c.in_channels for c in convolutions] == [pool.channels for pool in pools.values()]
    # They start as averages, which the context pools are as well.
    assert all(torch.allclose(c.weight.sum((1, 2, 3)), torch.ones(c.in_channels)) for c in convolutions)
    for model in (rival, made(name, "pools")):
        assert not any(isinstance(module, nn.MaxPool2d | nn.AvgPool2d) for module in model.modules())
        assert model(torch.rand(2, 1, FAMILIES[name].size, FAMILIES[name].size)).shape == (2, 10)


def ispool(module):
    return isinstance(module, ContextPool2d)


@pytest.mark.parametrize("name", PLACES)
def test_the_wider_plain_model_costs_what_the_pools_do(name):
    assert macs(name, "pools") <= macs(name, "plain, wider") <= 1.06 * macs(name, "pools")
    assert macs(name, "plain") < macs(name, "depthwise 3x3") < macs(name, "pools")


def test_before_attention_each_block_has_a_pool():
    model = made("vit-4", "pools before attention")
    assert [name for name, m in model.named_modules() if ispool(m)] == [f"blocks.{i}.context_pool" for i in range(4)]
    assert not any(block._forward_hooks for block in model.blocks)


def test_what_pools_learn_is_noted_in_pixels_of_the_image():
    noted = json.loads(learned(made("vit-4", "pools"), torch.rand(20, 1, 28, 28), 28, True))
    assert list(noted) == PLACES["vit-4"]
    for site in noted.values():
        # New pools: 0.1 + 0.1 * 7 / 2 tokens of 4 pixels.
        assert site["quartiles"] == [1.8, 1.8, 1.8]
        assert torch.tensor(site["tokens"]).shape == (len(DRAWN), 7, 7)
    assert learned(made("vit-4", "plain"), torch.rand(20, 1, 28, 28), 28, True) == ""


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({0: 81.0, 1: 82.0, 2: 83.0}, {0: 80.0, 1: 80.9, 2: 82.1}, (1.0, 0.0577, 3, True)),
        ({0: 81.0, 1: 82.0}, {0: 80.0, 1: 82.0}, (0.5, 0.5, 2, False)),
        ({0: 81.0, 1: 90.0}, {0: 80.0, 2: 80.0}, (1.0, float("nan"), 1, False)),
    ],
)
def test_differences_are_taken_seed_by_seed(one, other, expected):
    assert difference(one, other) == pytest.approx(expected, abs=1e-4, nan_ok=True)
    assert difference(one, {}) is None


def test_it_goes_on_from_its_table_and_reports_what_there_is(tmp_path, monkeypatch, capsys):
    family = FAMILIES["vit-4"]
    short = dataclasses.replace(family, settings=(*family.settings[:-1], "epochs=4"))
    monkeypatch.setitem(paper_form.FAMILIES, "vit-4", short)
    images, classes = torch.randn(64, 1, 28, 28), torch.arange(64) % 10
    monkeypatch.setattr(paper_form, "open_images", lambda *_: ((images, classes), (images, classes)))
    monkeypatch.setattr(paper_form, "fill", lambda _: None)

    def run(*options):
        command = ["", "--data-dir", str(tmp_path), "--output", str(tmp_path), "--families", "vit-4", *options]
        monkeypatch.setattr("sys.argv", command)
        paper_form.main()
        return capsys.readouterr().out

    first = run("--forms", "plain", "pools", "--seeds", "1")
    assert first.count(" of a core") == 2
    assert run("--forms", "plain", "pools", "--seeds", "2").count(", seed 1: ") == 2
    rows = paper_form.read(tmp_path / "paper_form.csv")
    assert [(row["form"], row["seed"]) for row in rows] == [(f, s) for s in "01" for f in ("plain", "pools")]
    assert [len(row["curve"].split()) for row in rows] == 4 * [4]
    assert run("--forms", "plain", "pools", "--seeds", "2") == ""

    write_report(rows, images, tmp_path)
    report = (tmp_path / "paper_form.md").read_text()
    gains = [float(rows[i + 1]["accuracy"]) - float(rows[i]["accuracy"]) for i in (0, 2)]
    assert f"| `vit-4` | {sum(gains) / 2:+.2f} ± " in report
    assert "Not run yet: `resnet`" in report
    assert (tmp_path / "paper_form.svg").exists()
    assert (tmp_path / "paper_form_supports_vit-4.png").exists()
