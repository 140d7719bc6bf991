"""Finding a finished run and reading what it left: whatever is damaged is named, with the right exit code."""

import numpy as np
import pytest

from helpers.finished_runs import make_run
from metarun import errors
from metarun.finished import finished_run


@pytest.fixture
def run(tmp_path):
    """Make a run that looks finished."""
    return make_run(tmp_path / "run", np.arange(30.0))


def test_a_config_that_is_not_utf8_is_a_config_error(run):
    (run / "config.yaml").write_bytes(b"\xff")
    with pytest.raises(errors.ConfigError, match="not UTF-8") as raised:
        finished_run.find_run(run)
    assert raised.value.where == str(run / "config.yaml")


def test_a_folder_in_the_place_of_the_result_is_a_storage_error(run):
    (run / "result.json").unlink()
    (run / "result.json").mkdir()
    with pytest.raises(errors.StorageError) as raised:
        finished_run.read_result(run)
    assert str(run / "result.json") in raised.value.where
