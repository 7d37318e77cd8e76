"""A trained model made cheaper, end to end: budgets are kept, what comes out loads, and the base stays as it was."""

import copy
import math
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import timm
import torch
from full_disk import no_file_above
from small_models import images
from torch import nn

from cp_vision import UserError, count_macs, register_stand_in
from cp_vision.layers.context_pool_block import ContextPoolBlock
from cp_vision.search import compress, register_option
from cp_vision.search.fit.images import Images
from cp_vision.search.fit.kinds import DEFAULT_KINDS, kinds_of
from cp_vision.search.fit.library import Library
from cp_vision.search.fit.places import find_spots
from cp_vision.search.fit.workbench import Workbench, checked_score

BASES = {
    "test_vit": {"img_size": 32, "depth": 3, "num_classes": 5},
    "resnet18": {
        **{"layers": [4, 1, 1, 1], "channels": 4 * [16], "stem_type": "deep", "stem_width": 4, "num_classes": 5},
        "zero_init_last": False,
    },
}
QUICK = {"kinds": ["linear", "pool/3", "channels/4"], "max_run": 2, "tries": 3}


def base(name, **arguments):
    torch.manual_seed(0)
    model = timm.create_model(name, **{**BASES[name], **arguments})
    # Weights that do something: as timm draws them a small head gives the same for all images.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn_like(parameter) / math.sqrt(parameter[0].numel())
    if name == "resnet18":
        with torch.no_grad():
            model.train()(pictures())
    return model.eval()


def pictures(count=40):
    return images(count, size=(32, 32))


@pytest.mark.parametrize("name", BASES)
def test_budgets_are_kept_and_models_load(name, tmp_path):
    model, x = base(name).train(), pictures()
    before = copy.deepcopy(model.state_dict())
    wanted = copy.deepcopy(model).eval()(x).argmax(1)
    budgets = ["0.5x", "0.8x"]
    result = compress(model, x, budgets, evaluate=lambda m: (m(x).argmax(1) == wanted).float(), **QUICK)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert (result.images, result.held_out, result.measure) == (40, 10, "KL")
    for point, budget in zip(result.points, budgets, strict=True):
        assert result[budget] is point
        assert point.limit == int(float(budget[:-1]) * result.base_macs)
        for outcome in (point.best, *point.counterparts.values()):
            assert outcome.macs <= point.limit
            assert point.best.score <= outcome.score
            assert outcome.name in str(result)
        assert count_macs(point.model, (3, 32, 32)) == point.best.macs
        assert point.architecture.macs((3, 32, 32)) == point.best.macs
        assert {o.kind for o in point.counterparts["drop only"].candidate} == {"drop"}
        assert not any("pool" in o.kind for o in point.counterparts["no pools"].candidate)
        folder = tmp_path / budget
        point.save(folder)
        again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        with torch.no_grad():
            assert torch.equal(again(x), point.model(x))
    with pytest.raises(UserError, match=r"take one by its budget.*'0.5x', '0.8x'"):
        _ = result.model
    assert all(option.place in result.table() for option in result.options)
    assert any(option.kind == "channels/4" for option in result.options) == (name == "resnet18")


@pytest.mark.parametrize(("name", "budget"), [("test_vit", "params=0.7x"), ("resnet18", "latency=0.9x")])
def test_budgets_of_other_measures(name, budget, tmp_path):
    model = base(name)
    measure = budget.partition("=")[0]
    arguments = {**QUICK, "counterparts": False, "folder": tmp_path}
    result = compress(model, pictures(), budget, **arguments)
    (point,) = result.points
    assert point.measure == measure
    assert point.best.costs[measure] <= point.limit < result.base_costs[measure]
    assert point.best.costs["params"] == sum(p.numel() for p in point.model.parameters())
    assert point.best.candidate
    # Of MACs from the same library, which has measured latencies or not.
    again = compress(model, pictures(), "0.8x", **arguments)
    assert again.points[0].best.macs <= 0.8 * again.base_macs


def test_the_same_images_give_the_same_model():
    first, second = (compress(base("resnet18"), pictures(), "0.7x", counterparts=False, **QUICK) for _ in range(2))
    own = first.model.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in second.model.state_dict().items())
    assert first.architecture == second.architecture


def test_features_and_scores_of_ones_own():
    x = pictures()
    of_features = compress(base("test_vit", num_classes=0), x, "0.8x", counterparts=False, **QUICK)
    assert of_features.measure == "distance"
    assert 0 < of_features.points[0].best.score < 1
    model = base("test_vit")
    with torch.no_grad():
        wanted = model(x)

    def score(m):
        return (m(x) - wanted).square().mean()

    own = compress(model, x, "0.8x", score=score, evaluate=score, counterparts=False, **QUICK)
    assert own.measure == "score"
    assert own.points[0].best.score == pytest.approx(own.points[0].best.accuracy.value)


def test_more_images_for_the_fit_at_the_end_bring_the_model_nearer():
    model, x = base("test_vit"), pictures(440)
    arguments = {**QUICK, "kinds": ["linear"], "max_run": 1, "tries": 1, "counterparts": False}
    plain = compress(model, x[:40], "0.5x", **arguments).points[0].best
    more = compress(model, x[:40], "0.5x", to_refit=x[40:].split(100), **arguments).points[0].best
    assert more.candidate == plain.candidate
    assert more.refitted
    assert more.score < 0.9 * plain.score


@pytest.mark.parametrize("name", BASES)
def test_distillation_never_makes_a_model_worse(name):
    model, x = base(name), pictures()
    arguments = {**QUICK, "kinds": ["linear"], "max_run": 1, "tries": 1, "counterparts": False}
    plain = compress(model, x, "0.5x", **arguments).points[0]
    trained = compress(model, x, "0.5x", epochs=3, **arguments).points[0]
    assert trained.best.candidate == plain.best.candidate
    assert trained.best.score <= plain.best.score
    changed = any(
        not torch.equal(value, trained.model.state_dict()[key]) for key, value in plain.model.state_dict().items()
    )
    assert changed == (trained.best.epochs > 0)


class Read:
    """Batches that break off when so many were read; None never does."""

    def __init__(self, images, most=None):
        self.images, self.most, self.count = images, most, 0

    def __iter__(self):
        for batch in self.images.split(8):
            if self.count == self.most:
                raise KeyboardInterrupt
            self.count += 1
            yield batch


@pytest.mark.slow
def test_a_distillation_that_was_stopped_goes_on(tmp_path):
    model, x = base("test_vit"), pictures()
    more = torch.randn(48, *x.shape[1:], generator=torch.Generator().manual_seed(3))
    arguments = {**QUICK, "kinds": ["linear"], "max_run": 1, "tries": 1, "counterparts": False, "epochs": 4}
    whole = Read(more)
    wanted = compress(model, x, "0.5x", training=whole, folder=tmp_path / "whole", **arguments).points[0]
    # Four rates and four epochs of six batches, and what tells these images from others.
    seen = whole.count - 48
    assert seen < 6
    # While a rate is chosen, within the second epoch, within the last.
    for most in (seen + 3, seen + 24 + 6 + 3, seen + 12 + 3):
        with pytest.raises(KeyboardInterrupt):
            compress(model, x, "0.5x", training=Read(more, most), folder=tmp_path / "stopped", **arguments)
    rest = Read(more)
    for again in (rest, Read(more)):
        found = compress(model, x, "0.5x", training=again, folder=tmp_path / "stopped", **arguments).points[0]
        assert found.best == wanted.best
        own = found.model.state_dict()
        assert all(torch.equal(value, own[key]) for key, value in wanted.model.state_dict().items())
    assert rest.count == seen + 6
    # What is done is not done again.
    assert again.count == seen
    (file,) = (tmp_path / "stopped" / "distilled").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=file.name):
        compress(model, x, "0.5x", training=rest, folder=tmp_path / "stopped", **arguments)


def test_a_distillation_on_a_full_disk_goes_on_when_there_is_room(tmp_path):
    model, x = base("test_vit"), pictures()
    arguments = {**QUICK, "kinds": ["linear"], "max_run": 1, "tries": 1, "counterparts": False, "folder": tmp_path}
    compress(model, x, "0.5x", **arguments)
    room = max(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    with no_file_above(room), pytest.raises(OSError, match="File too large"):
        compress(model, x, "0.5x", epochs=2, **arguments)
    assert not [path for path in (tmp_path / "distilled").rglob("*") if path.is_file()]
    assert compress(model, x, "0.5x", epochs=2, **arguments).points[0].best.score > 0


class Halved(ContextPoolBlock):
    """A stand-in of one's own: it reads half of what the block of the package reads."""

    def features(self, x_BCHW, x_BPC=None):
        return [0.5 * part for part in super().features(x_BCHW, x_BPC)]

    def forward(self, x_BCHW, x_BPC=None):
        of_grid, *prefix = (r(f) for r, f in zip(self.read_outs(), self.features(x_BCHW, x_BPC), strict=True))
        y_BCHW = x_BCHW + of_grid.mT.unflatten(2, x_BCHW.shape[2:])
        return y_BCHW if x_BPC is None else (y_BCHW, x_BPC + torch.cat(prefix, 1))


def test_a_kind_of_ones_own():
    register_stand_in(
        "halved",
        lambda modules, place, rank=8: Halved(
            place.channels, rank=rank, pool=False, norm=place.norm, prefix=place.prefix
        ),
        ["rank"],
    )
    register_option("halves", lambda place: {"kind": "halved", "rank": 8} if place.residual else None)
    result = compress(base("test_vit"), pictures(), "0.5x", kinds=["halves"], max_run=1, tries=2, counterparts=False)
    assert {option.kind for option in result.options} == {"drop", "halves"}
    assert "halves" in {option.kind for option in result.points[0].best.candidate}


@pytest.mark.parametrize("name", BASES)
def test_scores_are_the_same_to_the_bit(name, monkeypatch, tmp_path):
    """Scored again, in another order, and with the model run from the start."""
    model, x = base(name), pictures()
    bench = Workbench(model, Images(x, model, 512))
    library = Library(bench, find_spots(bench.model, 2), kinds_of(["linear"]), tmp_path)
    candidates = [(option,) for option in library.options[:4]] + [
        tuple(o for o in library.options if o.kind == "drop")[:1]
    ]
    scores = [library.score(candidate) for candidate in candidates]
    assert scores == [library.score(candidate) for candidate in reversed(candidates)][::-1]
    assert min(scores) > 0
    monkeypatch.setattr("cp_vision.search.fit.replay._BYTES", 0)
    whole = Workbench(model, Images(x, model, 512))
    assert scores == [whole.score(library.changes(candidate)) for candidate in candidates]
    assert whole.score([]) == 0


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from test_compress import library
def tell(done, total, what):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
library({folder!r}, tell)
"""


def library(folder, tell=None):
    model = base("test_vit")
    bench = Workbench(model, Images(pictures(), model, 512))
    return Library(bench, find_spots(bench.model, 2), kinds_of(DEFAULT_KINDS[:3]), Path(folder), tell)


@pytest.mark.slow
def test_a_killed_library_goes_on_to_the_same_bits(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    paths = [str(Path(__file__).parent), *(path for path in sys.path if path.endswith("helpers"))]
    code = KILLED.format(paths=paths, folder=str(killed))
    run = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.returncode == -signal.SIGKILL
    assert len(list(killed.glob("block-*.json"))) == 2
    (killed / ".block-002.safetensors.unfinished").write_bytes(b"half")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seen = []
        resumed = library(killed, lambda done, total, what: seen.append(done))
        assert seen == [3]
        assert resumed.options == library(whole).options
    finally:
        torch.set_num_threads(threads)
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in killed.iterdir())
    assert all((whole / name).read_bytes() == (killed / name).read_bytes() for name in names)


NAN = pictures()
NAN[3, 0, 0, 0] = math.nan


class Shuffled:
    """Other images each time."""

    def __iter__(self):
        return iter(torch.randn(40, 3, 32, 32).split(8))


MISTAKES = [
    ({"model": "resnet18"}, "'resnet18' is no model"),
    ({"model": nn.Linear(3, 3)}, "Linear"),
    ({"model": base("resnet18", layers=4 * [1])}, "no block that could be left out"),
    ({"images": pictures(15)}, "15 are too few; give at least 16"),
    ({"images": torch.ones(40, 3, 32, 32)}, "all 40 are alike"),
    ({"images": NAN}, "no numbers"),
    ({"images": iter([pictures()])}, "only once"),
    ({"images": Shuffled()}, "others when they are read again"),
    ({"images": [pictures(8), images(8, size=(32, 48))]}, "mixed"),
    ({"images": images(40, size=(48, 48))}, "the model takes (3, 32, 32)"),
    ({"budget": "0.01x"}, "below the smallest that can be met, 0."),
    ({"budget": "lots"}, "'lots' is neither"),
    ({"budget": "0.5x,0.50x"}, "twice"),
    ({"budget": 0.5}, "must be text"),
    ({"budget": "params=0.01x"}, "below the smallest that can be met, 0."),
    ({"budget": "latency=1us"}, "below the smallest that can be met, "),
    ({"budget": "0.5x,params=0.5x"}, "one measure"),
    ({"kinds": ["lineer"]}, "did you mean 'linear'"),
    ({"kinds": "linear"}, "must be a list"),
    ({"max_run": 0}, "max_run 0"),
    ({"tries": 1.5}, "tries 1.5"),
    ({"score": 3}, "score 3"),
    ({"score": lambda model: "good"}, "score gave 'good'"),
    ({"evaluate": lambda model: "good"}, "evaluate gave 'good'"),
]


@pytest.mark.parametrize(("changed", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistakes(changed, message):
    arguments = {"model": base("test_vit"), "images": pictures(), "budget": "0.8x", **QUICK, "kinds": [], **changed}
    with pytest.raises(UserError) as error:
        compress(**arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_score_may_be_a_tensor_with_gradients():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checked_score(lambda model: model.weight.square().mean(), nn.Linear(2, 2)) > 0
    assert checked_score(lambda model: torch.tensor(math.nan), nn.Linear(2, 2)) == math.inf
    with pytest.raises(UserError, match="score gave True"):
        checked_score(lambda model: torch.tensor(True), nn.Linear(2, 2))


def test_a_folder_of_other_images(tmp_path):
    model = base("resnet18")
    compress(model, pictures(), "0.9x", folder=tmp_path, kinds=[], tries=1)
    with pytest.raises(UserError, match="library of other images"):
        compress(model, pictures(36), "0.9x", folder=tmp_path, kinds=[], tries=1)
    # Another budget goes on from what is there.
    seen = []
    compress(model, pictures(), "0.8x", folder=tmp_path, kinds=[], tries=1, progress=lambda *told: seen.append(told))
    assert [what for *_, what in seen] == ["budget 0.8x"]


@pytest.fixture(scope="module")
def small_library(tmp_path_factory):
    """The folder of a library of maps."""
    folder = tmp_path_factory.mktemp("library")
    compress(base("test_vit"), pictures(), "0.9x", folder=folder, kinds=["linear"], tries=1)
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("block-*.safetensors", None),
        ("block-*.safetensors", "cut off"),
        ("block-000.json", "{"),
        ("block-000.json", "[]"),
        ("block-000.json", '{"options": [{"x": 1}]}'),
        ("scores.json", "[1]"),
        ("library.json", "[1]"),
    ],
)
def test_a_damaged_file_of_a_library_is_named(name, content, small_library, tmp_path):
    shutil.copytree(small_library, tmp_path / "copy")
    damaged = list((tmp_path / "copy").glob(name))
    assert damaged
    for path in damaged:
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
    with pytest.raises(UserError, match=rf"copy/{name.replace('*', '00.')}' .*; remove .*\.\* there"):
        compress(base("test_vit"), pictures(), "0.9x", folder=tmp_path / "copy", kinds=["linear"], tries=1)
