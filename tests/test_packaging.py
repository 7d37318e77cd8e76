"""What installs: all rooms from one checkout, a wheel and a source archive that hold what they should."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def package_files():
    """Every file of the package that is no leftover of running it, those behind the links to its other rooms too."""
    for folder, _, names in os.walk(ROOT / "cp_vision", followlinks=True):
        if "__pycache__" not in folder:
            yield from (Path(folder, name) for name in names)


def test_all_rooms_are_those_of_the_checkout_that_python_was_started_in(tmp_path):
    # A second checkout in the same environment, as of another branch: nothing of it may come from the first.
    shutil.copytree(ROOT / "cp_vision", tmp_path / "cp_vision", symlinks=True)
    for room in ("recipes", "search"):
        shutil.copytree(ROOT / room, tmp_path / room)
    code = "import cp_vision, cp_vision.recipes, cp_vision.search\n"
    code += "print(cp_vision.__file__, cp_vision.recipes.__file__, cp_vision.search.__file__)"
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [Path(path).is_relative_to(tmp_path) for path in told.stdout.split()] == [True] * 3


@pytest.mark.slow
def test_the_wheel_holds_the_three_rooms_and_nothing_else_and_works(tmp_path):
    # The wheel is built from what the source archive holds.
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)], check=True)
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source)], check=True)
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"cp_vision"}
    # Of a checkout or of an unpacked archive: whatever git knows of the package, and nothing else.
    ours = {str(path.relative_to(ROOT)) for path in package_files()}
    assert {name for name in names if name.startswith("cp_vision/")} == ours
    with tarfile.open(source) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
        assert not any(member.issym() for member in archive.getmembers())
    assert ours <= members
    # Its tests run from it.
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*") if path.suffix in (".py", ".txt")}
    assert tests <= members
    assert any(name.endswith("licenses/LICENSE") for name in names)
    # The packages that it needs are those of the tests; it comes before what is installed to be edited.
    site, output = tmp_path / "site", tmp_path / "run"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True)
    command = [str(site / "bin" / "cp-search"), "test_vit2", "--trials", "2", "--finalists", "1", "--seeds", "1"]
    command += ["--set", "epochs=1", "--set", "batch_size=256", "--set", "opt=adamw"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([*command, "--output", str(output)], env=environment, cwd=tmp_path, check=True)
    code = "import cp_vision.search, timm; print(cp_vision.__file__, cp_vision.search.__file__)"
    code += "; timm.create_model('local-dir:run/best', pretrained=True)"
    told = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert told.stdout.count(str(site)) == 2, told.stderr
