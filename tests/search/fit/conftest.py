"""What tests of searches by fits share: a base, and one Ray in a process."""

import pytest
from digits_base import write_base
from ray_here import ray_cluster, search_environment

__all__ = ["ray_cluster", "search_environment", "weights"]


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of a base that tells digits apart."""
    return write_base(tmp_path_factory.mktemp("base"))
