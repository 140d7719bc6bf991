"""What the best possible rule reaches, beside the tables of a finished run."""

import json

import numpy as np
import pytest

from helpers import runs
from helpers.finished_runs import make_run
from metarun.finished import ceiling, comparison
from metarun.finished.comparison import Choice
from metarun.finished.finished_run import read_result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run that no test changes, but for its ceiling.json."""
    return runs.train(
        tmp_path_factory.mktemp("ceiling") / "run", runs.SINGLE, "training.steps=2", "checkpoint.every=2"
    )


def test_the_ceiling_is_computed_once_and_kept_beside_the_result(run, monkeypatch):
    result = read_result(run)
    reached = ceiling.find_values(run, result)
    assert reached["loss"].shape == (result["episodes"]["count"],)
    kept = json.loads((run / ceiling.FILE).read_text())
    assert (kept["hash"], kept["metrics"]["loss"]) == (result["episodes"]["hash"], reached["loss"].tolist())
    monkeypatch.setattr(ceiling, "compute", lambda *_: pytest.fail("it was computed again"))
    np.testing.assert_array_equal(ceiling.find_values(run, result)["loss"], reached["loss"])


def test_a_kept_ceiling_of_other_episodes_is_not_taken(run):
    result = read_result(run)
    other = result | {"episodes": result["episodes"] | {"hash": "0123456789abcdef"}}
    ceiling.find_values(run, result)
    assert ceiling.read(run / ceiling.FILE, other) is None
    assert ceiling.find_values(run, other) is None  # the config gives the episodes of the result


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"metrics": 3}'])
def test_a_damaged_file_is_made_again(run, damage):
    (run / ceiling.FILE).write_text(damage)
    assert ceiling.find_values(run, read_result(run)) is not None
    assert json.loads((run / ceiling.FILE).read_text())["metrics"]["loss"]


def test_a_file_with_values_of_some_episodes_alone_is_made_again(run):
    result = read_result(run)
    ceiling.find_values(run, result)
    kept = json.loads((run / ceiling.FILE).read_text())
    for metrics in ({"loss": [1.0, 2.0]}, {}):
        (run / ceiling.FILE).write_text(json.dumps(kept | {"metrics": metrics}))
        assert ceiling.find_values(run, result)["loss"].shape == (result["episodes"]["count"],)


def test_compare_eval_and_the_report_have_a_row_of_the_best_possible(metarun_, run, tmp_path):
    result = read_result(run)
    values = ceiling.find_values(run, result)["loss"]
    (tmp_path / "other").symlink_to(run)
    compared = comparison.compare([run, tmp_path / "other"], Choice())
    assert compared["ceiling"]["mean"] == pytest.approx(values.mean())
    assert compared["ceiling"]["behind"]["mean"] < 0
    said = metarun_("compare", run, tmp_path / "other")
    assert sum("best possible" in line for line in said.out) == 1
    said = metarun_("eval", run)
    (row,) = [line for line in said.out if line.startswith("best possible")]
    assert f"{values.mean():.4f}" in row
    assert "one seed: says nothing about training noise" in said.out[-1]


def test_a_run_of_a_family_without_a_known_optimum_has_none(tmp_path):
    path = make_run(tmp_path / "run", np.zeros(30), config="seed: 0\n")
    assert ceiling.find_values(path, read_result(path)) is None
    assert not (path / ceiling.FILE).exists()
