"""What tests of searches by fits share: a base."""

import pytest
from digits_base import write_base


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of a base that tells digits apart."""
    return write_base(tmp_path_factory.mktemp("base"))
