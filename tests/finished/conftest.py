"""A run that several tests of this folder open. No test changes it."""

from pathlib import Path

import pytest

from helpers import drawings


@pytest.fixture(scope="session")
def picture_run(tmp_path_factory) -> Path:
    """A run on drawings, with the weights that training begins with."""
    return drawings.make_run(tmp_path_factory.mktemp("pictures") / "run")
