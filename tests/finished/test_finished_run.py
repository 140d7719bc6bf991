"""Finding a finished run and reading what it left: whatever is damaged is named, with the right exit code."""

import json
import os

import numpy as np
import pytest

from helpers.finished_runs import make_run
from metarun import errors
from metarun.finished import finished_run, result_layout
from metarun.runs import seals, strict_json


@pytest.fixture
def run(tmp_path):
    """Make a run that looks finished."""
    return make_run(tmp_path / "run", np.arange(30.0))


def put_sparse(path):
    with path.open("wb") as file:
        file.truncate(40 * 10**9)


STRANGE = {
    "not UTF-8": lambda path: path.write_bytes(b"\xff"),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "40,000,000,000 bytes": put_sparse,
}


@pytest.mark.parametrize("said", STRANGE)
def test_a_strange_config_is_a_checkpoint_error_and_a_strange_result_a_data_error(run, said):
    for name, error in (("result.json", errors.DataError), ("config.yaml", errors.CheckpointError)):
        file = run / name
        file.unlink()
        STRANGE[said](file)
        with pytest.raises(error, match=said) as raised:
            finished_run.read_result(run)
        assert raised.value.where == str(file)
    with pytest.raises(errors.CheckpointError, match=said):
        finished_run.find_run(run)


def test_a_run_whose_links_lead_back_to_themselves_is_no_run(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(errors.CheckpointError, match="no run here"):
        finished_run.find_run(tmp_path / "loop")


def test_an_edited_number_in_a_sealed_result_is_refused(run):
    file = run / "result.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps(seals.seal_result(run, {}, result, ["episodes/maml-test.npz"])))
    assert finished_run.read_result(run) == result
    file.write_text(file.read_text().replace('"mean": 14.5', '"mean": 13.5', 1))
    with pytest.raises(errors.DataError, match="was changed after it was written"):
        finished_run.read_result(run)


CHANGES = {
    "stages": 1,
    "modes": [],
    "split": "../../other",
    "episodes.count": "30",
    "stages.maml": [],
    "stages.maml.step": 10**400,
    "stages.maml.inductive.adapted": [],
    "stages.maml.inductive.adapted.loss.mean": None,
    "stages.maml.inductive.adapted.loss.ci95": True,
    "stages.maml.members": {},
    "stages.maml.best": [],
    "seeds": ["0"],
    "trials": {},
    "diverged": [{"trial": 0}],
    "costs": [],
    "costs.maml": {},
    "costs.timed": {
        "own": {"seconds": 3.0, "flops": 6.0, "parameters": 4, "steps": None, "ended_by": "seconds"},
        "total": {"seconds": 3.0, "flops": 6.0, "parameters": 4},
        "adaptation": {"flops": 3.0},
        "prediction": {"flops": 1.0},
        "replicas": 1,
    },
}


@pytest.mark.parametrize("place", CHANGES)
def test_a_result_of_another_layout_is_refused_and_the_place_named(run, place):
    result = json.loads((run / "result.json").read_text())
    section, *keys = result, *place.split(".")
    for key in keys[:-1]:
        section = section.setdefault(key, {})
    section[keys[-1]] = CHANGES[place]
    with pytest.raises(ValueError, match=place.split(".")[-1]):
        result_layout.check(json.loads(strict_json.encode(result)))


@pytest.mark.slow
def test_results_of_trained_runs_have_the_layout(single, both):
    for path in (single, both):
        finished_run.read_result(path)
