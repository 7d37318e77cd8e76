"""One Ray for all tests of searches in a process."""

from ray_here import ray_cluster, search_environment

__all__ = ["ray_cluster", "search_environment"]
