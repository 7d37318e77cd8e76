"""Shared fixtures: a fixed seed for every test, and small models."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
