"""Shared fixtures: a fixed seed and registries as they were for every test; versions; who shares a process."""

import importlib
import importlib.metadata
from collections.abc import Iterator

import pytest

# Fixtures that take seconds and that many tests look at.
SHARED = ("trained", "folder_training", "half_way", "finished", "searched", "another", "scored", "whole")

# Where tests, and pages that tests run, register something of their own.
REGISTRIES = {
    "cp_vision.anatomy.known_families": "_FAMILIES",
    "cp_vision.surgery.stand_ins": "_KINDS",
    "cp_vision.search.fit.kinds": "_KINDS",
    "cp_vision.search.samplers.registry": "SAMPLERS",
}


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


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    tables = [getattr(importlib.import_module(module), name) for module, name in REGISTRIES.items()]
    before = [dict(table) for table in tables]
    yield
    for table, was in zip(tables, before, strict=True):
        table.clear()
        table.update(was)
