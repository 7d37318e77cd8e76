"""Several processes fit one library: those of the same command, and workers of Ray."""

import multiprocessing

import commands
import pytest
from digits_base import MODEL_KWARGS

from cp_vision.search import SearchConfig
from cp_vision.search.fit.library_files import LibraryFiles
from cp_vision.search.run_fit import FitSearch

MADE = ("options.csv", "0.8x/model.safetensors")


def hold(folder, claimed, end):
    with LibraryFiles(folder, {}).claims() as claim:
        claimed.put([claim(0), claim(2)])
        end.get()


def test_a_block_is_claimed_by_one_process_until_it_ends(tmp_path):
    fork = multiprocessing.get_context("spawn")
    claimed, end = fork.Queue(), fork.Queue()
    files = LibraryFiles(tmp_path, {})
    other = fork.Process(target=hold, args=(tmp_path, claimed, end))
    other.start()
    assert claimed.get() == [True, True]
    (tmp_path / ".block-001.safetensors.unfinished").touch()
    (tmp_path / ".block-002.safetensors.unfinished").touch()
    with files.claims() as claim:
        assert [claim(block) for block in range(3)] == [False, True, False]
    # What others are writing is left alone.
    assert [path.name for path in tmp_path.glob(".*.unfinished")] == [".block-002.safetensors.unfinished"]
    other.kill()
    other.join()
    with files.claims() as claim:
        assert [claim(block) for block in range(3)] == [True, True, True]


def words(weights, folder):
    options = ["--weights", str(weights), "--fit-images", "32", "--budget", "0.8x", "--output", str(folder)]
    return ["cp-search", "test_vit", *MODEL_KWARGS, *options]


@pytest.fixture(scope="module")
def alone(weights, tmp_path_factory):
    """What a single process makes, by file."""
    folder = tmp_path_factory.mktemp("alone") / "out"
    assert commands.run(words(weights, folder)).returncode == 0
    return {name: (folder / name).read_bytes() for name in MADE}


@pytest.mark.slow
def test_the_same_command_twice_at_once(alone, weights, tmp_path):
    running = [commands.start(words(weights, tmp_path / "out")) for _ in range(2)]
    assert [process.wait().returncode for process in running] == [0, 0]
    assert {name: (tmp_path / "out" / name).read_bytes() for name in MADE} == alone
    assert not list((tmp_path / "out").rglob("*.unfinished"))


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_workers_of_ray(ray_cluster, alone, weights, tmp_path):
    kwargs = {"patch_size": 8, "depth": 3}
    config = {"base": "test_vit", "model_kwargs": kwargs, "weights": str(weights), "fit_images": 32, "budget": "0.8x"}
    told = []
    search = FitSearch(SearchConfig(**config, executor="ray", parallel=2, output=str(tmp_path / "out")))
    search.run(lambda done, total, what: told.append((done, total, what)))
    assert (3, 3, "options at blocks") in told
    assert {name: (tmp_path / "out" / name).read_bytes() for name in MADE} == alone
