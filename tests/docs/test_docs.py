"""Every command and every piece of Python in README and docs/ is run, or says in ``doc_blocks`` why not."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from doc_blocks import (
    BLOCKS,
    CODE,
    FOREIGN,
    NOT_RUN,
    PAGES,
    ROOT,
    SHOWN,
    SLOW_PAGES,
    SMALL,
    WORDS,
    of_language,
    python_of,
)
from PIL import Image
from slow_cases import slow_unless

from benchmarks import imagenet
from cp_vision import Architecture, count_macs
from cp_vision.commands import cp_models_command as models_cli
from cp_vision.recipes import build_model, load_recipe
from cp_vision.recipes import cli as train_cli
from cp_vision.recipes.models import model_args
from cp_vision.recipes.training.dry_run import CLASSES, IMAGES
from cp_vision.search import SearchConfig, load_space_options, measure_space
from cp_vision.search.cli import main as search_cli
from cp_vision.search.cli.subcommand_arguments import COMMANDS
from cp_vision.search.config.files import read_values

# They share one tiny search.
pytestmark = pytest.mark.xdist_group("docs")

SEARCHES = ("digits", "first", "pets", "half", "half-tuned", "pets-long", "a3", "example")
TINY = {"patch_size": 16, "depth": 3, "init_values": 1.0}


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    """A folder with everything that the pages take for granted: images, a finished search, weights, recipes."""
    desk = tmp_path_factory.mktemp("docs")
    noise = np.random.default_rng(0)
    for folder in ("pets", "imagenet"):
        for split, count in (("train", 6), ("val", 1)):
            for name in range(10):
                place = desk / folder / split / str(name)
                place.mkdir(parents=True)
                for number in range(count):
                    Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(place / f"{number}.jpg")
    shutil.copy(desk / "pets" / "val" / "0" / "0.jpg", desk / "photo.jpg")
    found = desk / "found"
    words = ["test_vit2", "--model-kwargs", *(f"{key}={value}" for key, value in TINY.items()), "--trials", "2"]
    words += ["--finalists", "1", "--seeds", "1"]
    words += ["--set", "epochs=1", "--set", "batch_size=128", "--set", "opt=adamw", "--output", str(found)]
    assert search_cli.main(words) == 0
    for place in (*(desk / "runs" / name for name in SEARCHES), desk / "nfs" / "runs" / "pets"):
        shutil.copytree(found, place)
    shutil.copytree(found / "best", desk / "runs" / "digits" / "0.5x")
    for data in ("pets", "imagenet"):
        (desk / "nfs" / data).symlink_to(desk / data)
    for name in ("vit_small_patch16_224", "vit_tiny_patch16_224", "resnet50.a1_in1k", "resnet18.a1_in1k"):
        torch.save(timm.create_model(name).state_dict(), desk / f"{name}.pth")
    torch.save(timm.create_model("resnet50", num_classes=10).state_dict(), desk / "tuned.pth")
    # The winner of so short a search may pool nowhere.
    pooled = Architecture("test_vit2", pools=("blocks.1",), model_args={"num_classes": 10, "img_size": 32, **TINY})
    timm.models.save_for_hf(
        pooled.build(), str(desk / "pooled"), model_args=pooled.create_args, safe_serialization=True
    )
    for block in of_language("yaml"):
        if block.title:
            assert not (desk / block.title).exists(), f"{block}: another block has this title"
            (desk / block.title).write_text(block.text)
    return desk


@pytest.fixture(autouse=True)
def _at_the_desk(request, monkeypatch):
    if "desk" in request.fixturenames:
        desk = request.getfixturevalue("desk")
        monkeypatch.chdir(desk)
        monkeypatch.setenv("HOME", str(desk))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def stand_in(word, desk):
    """A word of a command as it is in a test."""
    word = WORDS.get(word, word).replace("/nfs/", f"{desk}/nfs/")
    return os.path.expanduser(word)


def settings(values):
    return [word for value in values for word in ("--set", value)]


def search(words, desk):
    if words[0] in COMMANDS:
        return search_cli.main(words)
    if "--weights" in words:
        # A trained base and its images are the reader's own: what is asked for is read, as ever before anything else.
        search_cli._config(search_cli.parser().parse_args(words), "")
        return 0
    # What a page would write, here or elsewhere, is left alone.
    words = [*words, "--plan", "--output", str(desk / "new"), *settings(SMALL)]
    if "--storage" in words:
        words += ["--storage", f"journal:{desk / 'new.journal'}"]
    return search_cli.main(words)


def train(words, desk):
    words = [*words, *settings(SMALL)]
    if "--data-dir" in words:
        words += ["--set", "num_classes=10"]
    return train_cli.main(words if {"--eval", "--dry-run"} & {*words} else [*words, "--dry-run"])


def models(words, desk):
    if "--plot" in words:
        words = [re.sub("^local-dir:.*", "local-dir:pooled", word) for word in words]
    code = models_cli.main(words)
    if "--plot" in words:
        Image.open(words[words.index("--plot") + 1]).verify()
    return code


def torchrun(words, desk):
    from torch.distributed.run import get_args_parser

    args = get_args_parser().parse_args(words)
    assert args.no_python
    assert args.training_script == "cp-train"
    return train(args.training_script_args, desk)


def ray(words, desk):
    from ray.scripts.scripts import cli

    # Parses, and starts nothing.
    cli.commands[words[0]].make_context(words[0], words[1:])
    return 0


def make(words, desk):
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if line.startswith(".venv/bin/cp-search "):
            assert search(line.split()[1:], desk) == 0
    return 0


def python(words, desk):
    script, *rest = words
    assert script == "benchmarks/imagenet.py"
    if {"--hours", "--report"} & {*rest}:
        imagenet.main(rest)
    else:
        # tests/test_imagenet_benchmark.py runs it.
        assert imagenet.parser().parse_args(rest).data_dir.is_dir()
    return 0


def sbatch(words, desk):
    script, data_dir, _ = words
    assert (ROOT / script).is_file()
    assert Path(data_dir).is_dir()
    return 0


def pip(words, desk):
    assert words[0] == "install"
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for word in words[1:]:
        known = re.fullmatch(r"\.(?:\[([\w,]+)\])?", word)
        assert known or word in FOREIGN, word
        for extra in (known[1] or "").split(",") if known else ():
            assert not extra or extra in setup["options.extras_require"]
    return 0


RUNNERS = {
    **{"cp-search": search, "cp-train": train, "cp-models": models},
    **{"torchrun": torchrun, "ray": ray, "make": make, "pip": pip, "python": python, "sbatch": sbatch},
}


def test_every_block_is_run_or_says_why_not():
    without = {"architecture.md", "how-it-works.md", "limits.md"}
    assert {block.page for block in BLOCKS} >= {page.name for page in PAGES} - without
    shown = {(block.page, block.first) for block in BLOCKS if (block.page, block.first) in SHOWN}
    assert shown == set(SHOWN), "these are no longer in any page"
    for block in BLOCKS:
        if (block.page, block.first) not in SHOWN:
            assert block.language in ("sh", "python", "yaml"), f"{block}: nothing runs {block.language!r}"
    words = [words for block in of_language("sh") for words in block.commands]
    assert {first for first, *_ in words} == {*RUNNERS, *NOT_RUN}
    assert set(WORDS) <= {word for one in words for word in one}
    text = "".join(block.text for block in of_language("python"))
    assert all(re.search(pattern, text) for pattern in CODE)


def by_speed(blocks):
    return [pytest.param(block, id=str(block), marks=[pytest.mark.slow] if block.slow else []) for block in blocks]


@pytest.mark.parametrize("block", by_speed(of_language("sh")))
def test_commands(block, desk, capsys):
    for first, *words in block.commands:
        if first not in NOT_RUN:
            code = RUNNERS[first]([stand_in(word, desk) for word in words], desk)
            assert code == 0, f"{block}: {first} {' '.join(words)}: {capsys.readouterr().err}"


PYTHON = sorted({block.page for block in of_language("python")})


@pytest.mark.parametrize("page", slow_unless({*PYTHON} - {*SLOW_PAGES}, PYTHON))
def test_python(page, desk):
    code = compile(python_of(page), page, "exec")
    exec(code, {"__name__": page})  # noqa: S102 - the pages are the project's own


@pytest.mark.parametrize("block", by_speed(of_language("yaml")))
def test_yaml(block, tmp_path):
    path = tmp_path / "block.yaml"
    path.write_text(block.text)
    if "model:" in block.text:
        assert load_recipe(path).model
    elif "base:" in block.text:
        assert SearchConfig(**read_values(path)).base
    else:
        space = measure_space(Architecture("resnet18"), (3, 224, 224), load_space_options(path), ("macs",))
        assert space.max_pools
        assert any(block.poolable for block in space.blocks)


def test_the_table_of_recipes_says_what_they_say():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", (ROOT / "docs" / "imagenet.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == [
        path.stem
        for path in sorted((ROOT / "recipes" / "bundled").glob("cp_*.yaml"), key=lambda path: ORDER.index(path.stem))
    ]
    for name, cells in rows:
        recipe = load_recipe(name)
        with torch.device("meta"):
            model = build_model(recipe.model, model_args(recipe.model, recipe, CLASSES, recipe.model_kwargs))
        macs = count_macs(model, (3, recipe.img_size, recipe.img_size))
        said = (
            *(f"`{recipe.model}`", recipe.epochs, recipe.img_size, recipe.update_size, f"`{recipe.opt}`", recipe.lr),
            *(f"{macs / 1e9:.2f} G", f"{3 * macs * IMAGES * recipe.epochs / 1e18:.1f}"),
        )
        assert cells.split(" | ") == [str(value) for value in said]


def test_the_readmes_differences_are_the_benchmarks():
    results = (ROOT / "benchmarks" / "results" / "paper_form.md").read_text().splitlines()
    section = (ROOT / "README.md").read_text().partition("## Does pooling pay?")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows
    assert set(rows) <= set(results)


ORDER = [
    *("cp_resnet50_a1", "cp_resnet50_a2", "cp_resnet50_a3"),
    *("cp_vit_small_deit", "cp_vit_base_deit", "cp_vit_small_deit3"),
]


@pytest.mark.slow
def test_the_pictures_are_drawn_by_their_script(tmp_path):
    subprocess.run([sys.executable, str(ROOT / "docs" / "pictures.py"), "--output", str(tmp_path)], check=True)
    kept = {path.name: path for path in (ROOT / "docs" / "pictures").iterdir() if not path.is_symlink()}
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    for name, path in kept.items():
        if path.suffix == ".png":
            # Fonts and rounding differ from machine to machine.
            new, old = (np.asarray(Image.open(p).convert("L").resize((64, 32)), float) for p in (tmp_path / name, path))
            assert np.abs(new - old).mean() < 8


class Loaded(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self):
        super().__init__()
        self.addresses, self.style = [], False

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.style = tag == "style"
        if tag == "link" and given.get("rel") in ("canonical", "next", "prev"):
            return
        for key in ("href",) if tag == "link" else () if tag == "a" else ("src", "srcset", "data"):
            if given.get(key):
                self.addresses.append(given[key])
        self.addresses += urls(given.get("style") or "")

    def handle_data(self, data):
        if self.style:
            self.addresses += urls(data)


def urls(css):
    """What a style sheet makes a browser load."""
    return re.findall(r"""url\(["']?([^"')]+)""", css) + re.findall(r"""@import ["']([^"']+)""", css)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages, styles = list(tmp_path.rglob("*.html")), list(tmp_path.rglob("*.css"))
    assert len(pages) > len(PAGES)
    assert styles
    addresses = []
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        # A report of a search holds all that it needs.
        assert loaded.addresses or page.parent.name == "example", page
        addresses += loaded.addresses
    for style in styles:
        addresses += urls(style.read_text(encoding="utf-8"))
    assert not [address for address in addresses if re.match(r"(https?:)?//", address)]
    # Of everything that is public, the API has an entry.
    import cp_vision
    import cp_vision.recipes
    import cp_vision.search

    modules = {"cp_models", "torchvision_models"}
    for page, module in (("models", cp_vision), ("recipes", cp_vision.recipes), ("search", cp_vision.search)):
        text = (tmp_path / "api" / f"{page}.html").read_text(encoding="utf-8")
        for name in set(module.__all__) - modules:
            # The entry of a function whose file has its name is that in the file.
            assert re.search(rf'id="{module.__name__}\.([\w.]+\.)?{name}"', text), name


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert re.search(rf"\s{page.relative_to(ROOT / 'docs')}\n", navigation), page
