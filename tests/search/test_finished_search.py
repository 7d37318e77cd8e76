"""A finished search stands on its own: what may change in the world around it, and what its commands say then."""

import csv
import json
import os
import shutil
import tempfile
from pathlib import Path

import optuna
import pytest
import timm
from PIL import Image

from cp_vision.recipes import Recipe, load_recipe
from cp_vision.recipes.data.digits import Digits
from cp_vision.search.cli.main import main

BASE = ["test_vit2", "--budget", "0.8x", "--trials", "3", "--seeds", "1", "--model-kwargs", "patch_size=16", "depth=3"]
VALUES = ["epochs=1", "warmup_epochs=0", "opt=adamw", "lr=0.001", "batch_size=16", "workers=0"]


class World:
    """A finished search with its data and its recipe, in a folder that can be put back as it was."""

    def __init__(self, root):
        self.root, self.output = root, root / "runs" / "pets"
        self.data, self.recipe = root / "data", root / "own.yaml"

    def command(self, *more):
        places = ["--data-dir", str(self.data), "--recipe", str(self.recipe), "--output", str(self.output)]
        return [*BASE, *places, *more]

    def rows(self):
        with (self.output / "pareto.csv").open() as file:
            return list(csv.DictReader(file))

    def without_weights(self):
        """Number of a candidate whose weights were not kept, or are deleted."""
        shutil.rmtree(self.output / "weights")
        return "1"


def make_data(root):
    digits, counts = Digits(train=True), {}
    for i in range(len(digits)):
        image, label = digits[i]
        number = counts[label] = counts.get(label, 0) + 1
        if label > 2 or number > 24:
            continue
        path = root / ("train" if number <= 16 else "val") / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.convert("RGB").resize((32, 32)).save(path)


@pytest.fixture(scope="module")
def finished():
    """The search, made once; and a copy of all its files."""
    # Another user must get there.
    folder = Path(tempfile.mkdtemp(prefix="finished-"))
    folder.chmod(0o755)
    world = World(folder / "world")
    make_data(world.data)
    recipe = load_recipe("digits", VALUES).with_values(dataset="", model_kwargs={})
    world.recipe.write_text(recipe.to_yaml())
    assert main(world.command()) == 0
    shutil.copytree(world.root, folder / "copy")
    yield world
    shutil.rmtree(folder)


@pytest.fixture
def world(finished):
    """The finished search, as it was made."""
    world = World(finished.root)
    yield world
    shutil.rmtree(world.root)
    shutil.copytree(world.root.parent / "copy", world.root)


def edit_recipe(world):
    world.recipe.write_text(world.recipe.read_text().replace("lr: 0.001", "lr: 0.002"))


def delete_recipe(world):
    world.recipe.unlink()


def move_data(world):
    world.data.rename(world.root / "elsewhere")


def add_image(world):
    Image.new("RGB", (32, 32)).save(world.data / "train" / "0" / "another.png")


def move_output(world):
    world.output = world.output.rename(world.root / "moved")


def forget_values(world):
    """What a version wrote that did not have these keys yet, but one that is gone since."""
    study = optuna.load_study(study_name="cp-search", storage=f"sqlite:///{world.output / 'study.db'}")
    recipe, settings = study.user_attrs["recipe"], study.user_attrs["settings"]
    defaults = Recipe.model_validate({}).model_dump(mode="json")
    del recipe[next(key for key, value in defaults.items() if value and recipe[key] == value)], settings["objective"]
    study.set_user_attr("recipe", {**recipe, "of_old": 1})
    study.set_user_attr("settings", {**settings, "of_old": 1})


def run(words, capsys):
    code = main(words)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def is_one_line(err):
    return err.startswith("cp-search: error: ") and err.count("\n") == 1 and "Traceback" not in err


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What each command ends with; of resume also what its one line names.
CHANGES = {
    edit_recipe: (0, 0, 0, (2, "lr")),
    delete_recipe: (0, 0, 0, (0, "")),
    move_data: (0, 0, 0, (2, "data")),
    add_image: (0, 0, 0, (2, "number of images")),
    move_output: (0, 0, 0, (0, "")),
    forget_values: (0, 0, 0, (0, "")),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_changes_around_a_finished_search(change, world, capsys, tmp_path):
    rows = world.rows()
    change(world)
    before = files(world.root)
    *codes, (resumed, named) = CHANGES[change]
    assert run(["status", str(world.output)], capsys)[0] == codes[0]
    assert files(world.root) == before
    (world.output / "report.html").unlink()
    assert run(["report", str(world.output)], capsys)[0] == codes[1]
    assert (world.output / "report.html").exists()
    code, out, _ = run(["export", str(world.output), "1", "--output", str(tmp_path / "one")], capsys)
    assert code == codes[2]
    assert str(tmp_path / "one") in out
    timm.create_model(f"local-dir:{tmp_path / 'one'}", pretrained=True)
    assert world.rows() == rows
    code, _, err = run(["resume", str(world.output)], capsys)
    assert code == resumed, err
    if resumed:
        assert is_one_line(err)
        assert named in err
    # Nothing was trained again.
    assert world.rows() == rows


def test_the_same_command_finds_data_that_moved(world, capsys):
    rows = world.rows()
    move_data(world)
    world.data = world.root / "elsewhere"
    assert run(world.command(), capsys)[0] == 0
    assert world.rows() == rows
    # A recipe that is gone is the study's, but for what is said otherwise.
    delete_recipe(world)
    code, _, err = run(world.command("--set", "epochs=2"), capsys)
    assert (code, is_one_line(err), "epochs" in err) == (2, True, True)


def test_a_folder_that_can_be_read_alone(world, capsys):
    for path in [world.output, *world.output.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    elsewhere = Path(tempfile.mkdtemp())
    elsewhere.chmod(0o777)
    before, user = files(world.output), os.geteuid()
    if user == 0:
        # Whom permissions don't bind.
        os.seteuid(65534)
    try:
        status = run(["status", str(world.output)], capsys)
        report = run(["report", str(world.output)], capsys)
        export = run(["export", str(world.output), "1", "--output", str(elsewhere / "one")], capsys)
        inside = run(["export", str(world.output), "1"], capsys)
    finally:
        os.seteuid(user)
        for path in [world.output, *world.output.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert (status[0], export[0]) == (0, 0)
    for code, _, err in (report, inside):
        assert code in (1, 2)
        assert is_one_line(err)
        assert str(world.output) in err
    timm.create_model(f"local-dir:{elsewhere / 'one'}", pretrained=True)
    shutil.rmtree(elsewhere)
    assert files(world.output) == before


def test_what_is_missing_at_the_end_is_trained_again(world, capsys, tmp_path):
    rows, front = world.rows(), sorted(path.name for path in (world.output / "front").iterdir())
    metrics = json.loads((world.output / "best" / "metrics.json").read_text())
    for missing in ("weights", "best"):
        shutil.rmtree(world.output / missing)
    # Whoever has no data is told so, and which candidates can be had.
    moved = world.data.rename(world.root / "elsewhere")
    code, _, err = run(["export", str(world.output), "1", "--output", str(tmp_path / "one")], capsys)
    assert (code, is_one_line(err), str(world.data) in err) == (2, True, True)
    assert not (tmp_path / "one").exists()
    moved.rename(world.data)
    code, _, err = run(["resume", str(world.output)], capsys)
    assert code == 0, err
    assert json.loads((world.output / "best" / "metrics.json").read_text()) == metrics
    assert sorted(path.name for path in (world.output / "front").iterdir()) == front
    assert [row["accuracy"] for row in world.rows()] == [row["accuracy"] for row in rows]


@pytest.mark.parametrize("name", ["front", "best", "weights"])
def test_a_file_where_a_folder_belongs_is_one_line(name, world, capsys):
    shutil.rmtree(world.output / name)
    (world.output / name).write_text("hi")
    code, _, err = run(["resume", str(world.output)], capsys)
    assert (code, is_one_line(err), str(world.output / name) in err) == (2, True, True)
    assert (world.output / name).read_text() == "hi"


@pytest.mark.slow
def test_of_two_folders_on_one_storage_each_has_its_study_or_both_the_one_that_is_named(world, capsys):
    address = f"sqlite:///{world.root / 'shared.db'}"
    for user in ("anna", "bert"):
        world.output = world.root / user / "pets"
        code, out, err = run(world.command("--storage", address), capsys)
        assert code == 0, err
        name = json.loads((world.output / "search.json").read_text())["study"]
        assert name in out
    names = optuna.get_all_study_names(address)
    assert len(names) == 2
    assert all(name.startswith("pets-") for name in names)
    # On a machine that sees none of the weights the winner is trained again.
    world.output = world.root / "second" / "x"
    code, _, err = run(world.command("--storage", address, "--study", names[0]), capsys)
    assert code == 0, err
    assert (world.output / "best" / "model.safetensors").is_file()
    assert optuna.get_all_study_names(address) == names
    # The name goes with the folder.
    move_output(world)
    assert run(["status", str(world.output)], capsys)[0] == 0


def test_a_study_of_before_is_refused_in_one_line_that_says_its_version(tmp_path, capsys):
    output = tmp_path / "old"
    output.mkdir()
    study = optuna.create_study(
        study_name="cp-search", storage=f"sqlite:///{output / 'study.db'}", directions=["maximize", "minimize"]
    )
    study.set_user_attr("settings", {"base": "test_vit2", "recipe value lr": 0.01})
    study.add_trial(optuna.trial.create_trial(values=[90.0, 1e6]))
    (output / "search.json").write_text(json.dumps({"base": "test_vit2", "overrides": []}))
    for words in (["status", str(output)], ["resume", str(output)], ["test_vit2", "--output", str(output)]):
        code, _, err = run(words, capsys)
        assert (code, is_one_line(err), "0.1.0" in err) == (2, True, True), err


def test_export_before_anything_is_finished(world, capsys):
    with optuna.storages.RDBStorage(f"sqlite:///{world.output / 'study.db'}").engine.begin() as database:
        database.exec_driver_sql("UPDATE trials SET state = 'RUNNING'")
    code, _, err = run(["export", str(world.output), "0"], capsys)
    assert (code, is_one_line(err)) == (2, True)
    assert "0 to 0" not in err
