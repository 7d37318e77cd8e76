"""The rooms: who imports whom, what a wheel holds, and what importing costs."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"cp_vision": "cp_vision", "recipes": "cp_vision.recipes", "search": "cp_vision.search"}
ALLOWED = {
    "cp_vision": {"cp_vision"},
    "recipes": {"cp_vision", "cp_vision.recipes"},
    "search": {"cp_vision", "cp_vision.recipes", "cp_vision.search"},
}
OUTSIDE = {"cp_vision": {"optuna", "ray", "sklearn", "yaml", "pydantic"}, "recipes": {"optuna", "ray"}, "search": set()}


def imports(path, package):
    """Absolute names of all modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1]
            yield ".".join([*above, node.module] if node.module else above)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def room_of(module):
    for package in ("cp_vision.search", "cp_vision.recipes", "cp_vision"):
        if module == package or module.startswith(f"{package}."):
            return package
    return None


@pytest.mark.parametrize("room", ROOMS)
def test_dependencies_run_one_way(room):
    files = sorted((ROOT / room).glob("*.py"))
    assert files
    for path in files:
        for module in imports(path, ROOMS[room]):
            assert room_of(module) is None or room_of(module) in ALLOWED[room], (path, module)
            assert module.partition(".")[0] not in OUTSIDE[room], (path, module)


def test_files_have_one_idea():
    for room in ROOMS:
        for path in (ROOT / room).glob("*.py"):
            assert len(path.read_text().splitlines()) <= 260, path


def test_all_rooms_are_those_of_the_checkout_that_python_was_started_in(tmp_path):
    # A second checkout in the same environment, as of another branch: nothing of it may come from the first.
    shutil.copytree(ROOT / "cp_vision", tmp_path / "cp_vision", symlinks=True)
    for room in ("recipes", "search"):
        shutil.copytree(ROOT / room, tmp_path / room)
    code = "import cp_vision, cp_vision.recipes, cp_vision.search\n"
    code += "print(cp_vision.__file__, cp_vision.recipes.__file__, cp_vision.search.__file__)"
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [Path(path).is_relative_to(tmp_path) for path in told.stdout.split()] == [True] * 3


def test_importing_the_library_needs_no_search():
    code = "import sys, cp_vision; assert not {'optuna', 'ray', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_wheel_holds_the_three_rooms_and_nothing_else_and_works(tmp_path):
    # The wheel is built from what the source archive holds.
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)], check=True)
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source)], check=True)
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"cp_vision"}
    for room, package in ROOMS.items():
        for path in (*(ROOT / room).glob("*.py"), *(ROOT / room).glob("*.yaml")):
            assert f"{package.replace('.', '/')}/{path.name}" in names
    assert "cp_vision/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    # The packages that it needs are those of the tests; it comes before what is installed to be edited.
    site, output = tmp_path / "site", tmp_path / "run"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True)
    command = [str(site / "bin" / "cp-search"), "test_vit2", "--trials", "2", "--set", "epochs=1"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([*command, "--output", str(output)], env=environment, cwd=tmp_path, check=True)
    code = "import cp_vision.search, timm; print(cp_vision.__file__, cp_vision.search.__file__)"
    code += "; timm.create_model('local-dir:run/best', pretrained=True)"
    told = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert told.stdout.count(str(site)) == 2, told.stderr
