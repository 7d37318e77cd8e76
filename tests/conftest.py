"""Shared fixtures: a fixed seed for every test; the versions that a run is of."""

import pytest
import timm
import torch
import torchvision


def pytest_report_header() -> str:
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
