"""A config from the command line, from a file and from ``search.json``, and what the docs say of it."""

import json
import stat
from pathlib import Path

import pytest
from mistakes import assert_one_line_mistake

import cp_vision
from cp_vision import UserError
from cp_vision.recipes import load_recipe
from cp_vision.search import Search, SearchConfig, SpaceOptions
from cp_vision.search.cli import main as cli
from cp_vision.search.cli.arguments import options_table
from cp_vision.search.config.files import load_config, with_trials, write_config
from cp_vision.search.config.recipe import search_recipe
from cp_vision.search.config.schema import CONFIG_FILE

FILE = """\
base: test_vit2
budget: 0.7x
trials: 24
space: {modes: [gated, replace], max_pools: 2}
pool_options: {support_range: 0.25, hidden: 3}
overrides: [epochs=3, opt=adamw]
compiled: true
"""
FROM_FILE = {
    "base": "test_vit2",
    "budget": "0.7x",
    "trials": 24,
    "space": SpaceOptions(modes=("gated", "replace"), max_pools=2),
    "pool_options": {"support_range": 0.25, "hidden": 3},
    "overrides": ("epochs=3", "opt=adamw"),
    "compiled": True,
}
# Words, and what the config then says; of FILE where they begin with --config.
WORDS = [
    ("test_vit", {"base": "test_vit", "output": "runs/test_vit"}),
    ("--trials 5 test_vit --seed 3", {"trials": 5, "seed": 3}),
    (
        "test_vit --pool-kwargs mode=replace support_range=0.5",
        {"pool_options": {"mode": "replace", "support_range": 0.5}},
    ),
    ("--pool-kwargs support_range=0.25 test_vit", {"pool_options": {"support_range": 0.25}, "base": "test_vit"}),
    ("--pool-kwargs a=1 b=x --plan test_vit --pool-kwargs c=2", {"pool_options": {"a": 1, "b": "x", "c": 2}}),
    ("--pool-k a=1 test_vit --cpus 1", {"pool_options": {"a": 1}, "base": "test_vit"}),
    ("test_vit --model-kwargs", {"model_kwargs": {}}),
    ("test_vit", {"model_kwargs": None, "compiled": False}),
    ("--model-kwargs depth=2 test_vit", {"model_kwargs": {"depth": 2}, "base": "test_vit"}),
    ("test_vit --set epochs=1 --set opt=adamw", {"overrides": ("epochs=1", "opt=adamw")}),
    ("test_vit --cpus 0.5 --executor ray --resources tpu=1 disk=0.5", {"resources": {"tpu": 1, "disk": 0.5}}),
    ("test_vit --keep-accuracy 1 --compiled", {"keep_accuracy": 1.0, "compiled": True}),
    ("test_vit --storage journal:x --study pets", {"study": "pets"}),
    ("--config search.yaml", {**FROM_FILE, "output": "runs/test_vit2"}),
    ("--config search.yaml test_vit", {**FROM_FILE, "base": "test_vit", "output": "runs/test_vit"}),
    ("--config search.yaml --trials 7 --no-compiled", {**FROM_FILE, "trials": 7, "compiled": False}),
    ("--config search.yaml --pool-kwargs hidden=4 test_vit", {"pool_options": {"support_range": 0.25, "hidden": 4}}),
    ("--config search.yaml --set epochs=9", {"overrides": ("epochs=3", "opt=adamw", "epochs=9")}),
]


def config_of(words, monkeypatch):
    """The config that the command searches with."""
    asked = []
    monkeypatch.setattr(cli, "_search", lambda config, plan_only, command, quiet: asked.append(config))
    assert cli.main(words) == 0
    return asked[0]


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_a_command_and_a_file_make_the_config(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("search.yaml").write_text(FILE)
    config = config_of(words.split(), monkeypatch)
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.command == f"cp-search {words}"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("trails: 5", ["trails", "did you mean 'trials'"]),
        ("trials: true", ["trials", "True"]),
        ("trials: 5.0", ["trials", "5.0"]),
        ("budget: 0.7", ["budget", "0.7"]),
        ("overrides: [seed=3]", ["overrides", "'seed=3'"]),
        ("resources: {tpu: 1}", ["resources", "tpu", "ray"]),
        ("space: {img_size: 9999}", ["space", "img_size", "9999"]),
        ("pool_options: mode=gated", ["pool_options", "'mode=gated'"]),
        ("[trials]", ["search.yaml"]),
        ("5: 6", ["search.yaml"]),
        ("trials: [", ["search.yaml", "YAML"]),
    ],
)
def test_mistakes_in_a_file_name_the_key(text, names, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("search.yaml").write_text(text)
    assert_one_line_mistake(cli.main, ["test_vit", "--config", "search.yaml"], capsys, names)
    assert_one_line_mistake(cli.main, ["--config", "search.yaml", "test_vit", "--seed", "-1"], capsys, [])


def test_a_wrong_value_is_told_of_where_it_stands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("search.yaml").write_text("base: test_vit\ntrials: 0\n")
    assert_one_line_mistake(cli.main, ["--config", "search.yaml"], capsys, ["search.yaml", "trials 0"])
    assert_one_line_mistake(cli.main, ["--config", "search.yaml", "--trials", "-1"], capsys, ["--trials -1"])


def test_a_folders_config_is_what_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(load_recipe("digits").to_yaml())
    values = {**FROM_FILE, "recipe": "own.yaml", "output": tmp_path, "storage": "journal:x.log", "study": "mine"}
    values |= {"executor": "ray", "resources": {"tpu": 1.0}, "cpus": 0.5}
    config = SearchConfig(**values)
    write_config(config, tmp_path / CONFIG_FILE)
    found = load_config(tmp_path)
    assert found == config.with_values(recipe=str(tmp_path / "own.yaml"), storage=f"journal:{tmp_path / 'x.log'}")
    assert load_config(tmp_path, trials=31).trials == 31
    # The same keys in a file of one's own.
    assert SearchConfig(**json.loads((tmp_path / CONFIG_FILE).read_text())) == found


@pytest.mark.parametrize(
    ("storage", "command", "private"),
    [
        ("journal:x.log", "cp-search test_vit", False),
        ("postgresql://me:secret@host/x", "", True),
        (None, "cp-search test_vit --storage postgresql://me:secret@host/x", True),
    ],
)
def test_a_config_with_a_password_is_its_owners_alone(storage, command, private, tmp_path):
    write_config(SearchConfig(base="test_vit", storage=storage, command=command), tmp_path / CONFIG_FILE)
    mode = (tmp_path / CONFIG_FILE).stat().st_mode
    assert bool(mode & (stat.S_IRGRP | stat.S_IROTH)) != private


def test_files_of_other_versions(tmp_path):
    # What the version before the fields "study" and "resources" wrote, and less.
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"base": "test_vit", "trials": 3, "overrides": ["epochs=1"]}))
    expected = SearchConfig(base="test_vit", trials=3, overrides=("epochs=1",), output=tmp_path)
    assert load_config(tmp_path) == expected
    assert load_config(tmp_path, trials=5).trials == 5
    for text, names in (
        ('{"base": "test_vit", "colour": 1}', ["colour", "newer version"]),
        ('{"base": "test_vit", "trials": "3"}', ["trials", "'3'"]),
        ("[1]", ["holds no search"]),
        ("{", ["holds no search"]),
    ):
        (tmp_path / CONFIG_FILE).write_text(text)
        with pytest.raises(UserError) as caught:
            load_config(tmp_path)
        assert all(name in str(caught.value) for name in [*names, str(tmp_path)]), caught.value
        assert "\n" not in str(caught.value)


def test_replaced_values_are_checked():
    config = SearchConfig(base="test_vit", overrides=["epochs=1"], space={"pools": ["blocks.1"]})
    changed = config.with_values(trials=5, space=None)
    assert (changed.trials, changed.overrides, changed.space) == (5, ("epochs=1",), SpaceOptions())
    with pytest.raises(UserError):
        config.with_values(trials=0)
    with pytest.raises(UserError):
        config.with_values(trails=5)


def test_a_recipe_is_found_again_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "own.yaml").write_text(load_recipe("digits").to_yaml())
    for recipe, kept in (("digits", "digits"), ("own.yaml", str(tmp_path / "own.yaml"))):
        write_config(SearchConfig(base="test_vit", recipe=recipe), tmp_path / CONFIG_FILE)
        assert load_config(tmp_path).recipe == kept


def test_paths_may_be_paths(tmp_path):
    (tmp_path / "own.yaml").write_text(load_recipe("default").to_yaml())
    made = SearchConfig(base="test_vit", output=tmp_path, recipe=tmp_path / "own.yaml", data_dir=tmp_path / "absent")
    assert search_recipe(made).data_dir == str(tmp_path / "absent")
    with pytest.raises(UserError, match=r"absent.* doesn't exist"):
        Search(made)
    write_config(made, tmp_path / CONFIG_FILE)
    read = load_config(tmp_path)
    assert (read.recipe, read.data_dir) == (str(tmp_path / "own.yaml"), str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        ("cp-search x --trials 2 --seed 1", "cp-search x --seed 1 --trials 7"),
        ("cp-search x --trials=2 --seed 1 --trials 3", "cp-search x --seed 1 --trials 7"),
        ("cp-search x --trial-seconds 2", "cp-search x --trial-seconds 2 --trials 7"),
        ("", ""),
        ("it's mine", "it's mine"),
    ],
)
def test_commands_for_other_trials(command, changed):
    assert with_trials(command, 7) == changed


def test_every_field_is_an_option_and_described():
    shown = cli.parser().format_help()
    table = options_table()
    for name, field in SearchConfig.model_fields.items():
        assert field.description
        if name not in ("base", "command"):
            assert f"`{name}`" in table
    assert all(line.split("`")[1].split()[0] in shown for line in table.splitlines() if line.startswith("| `"))


def test_the_docs_have_the_table_of_the_options():
    page = Path(cp_vision.__file__).parents[1] / "docs" / "search-options.md"
    assert options_table() in page.read_text(encoding="utf-8"), "write options_table() into docs/search-options.md"
