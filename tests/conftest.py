"""Shared fixtures: a fixed seed for every test; the versions that a run is of; who shares a process."""

import importlib.metadata

import pytest

# Fixtures that take seconds and that many tests look at.
SHARED = ("trained", "folder_training", "half_way", "finished", "searched", "another", "scored", "whole")


def pytest_report_header() -> str:
    # Not imported: the process that hands tests to others needs none of them.
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision", "timm"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Else every process would make its own.
    for item in items:
        name = next((name for name in SHARED if name in getattr(item, "fixturenames", ())), None)
        if name is not None and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(autouse=True)
def _seed() -> None:
    import torch

    torch.manual_seed(0)
