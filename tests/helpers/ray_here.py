"""A Ray of several nodes on this machine, for tests: nothing of it listens beyond the loopback address."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cp_vision.search import SearchConfig
from cp_vision.search.executors.ray_cluster import check_cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def search_environment() -> Iterator[None]:
    """What workers need to find the tests' own modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "helpers"), str(ROOT)]))
        # Ray's workers yield to every other process, tests that run beside these among them.
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="session")
def ray_cluster(search_environment: None) -> Iterator[Any]:
    """A cluster with one node of two processors; this process is connected to it."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    # Imports Ray as a search does that starts one on this machine.
    check_cluster(SearchConfig(base="test_vit2", executor="ray"))
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
