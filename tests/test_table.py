"""scripts/table.py on finished runs: nothing is trained but what has no result."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_compare import COUNT, make_run

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def runs(tmp_path):
    generator = np.random.default_rng(0)
    values = generator.normal(3, 2, COUNT)
    for name, shift, digest in (("good", 0.0, "abc"), ("bad", 0.2, "abc"), ("elsewhere", 0.0, "other")):
        make_run(tmp_path / "runs" / name, values + shift, digest=digest)
    return tmp_path / "runs"


def table(runs, *arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "table.py"), *arguments, "--runs", str(runs)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


def test_finished_runs_are_ranked_and_those_on_other_episodes_are_named(runs, tmp_path):
    written, plot = tmp_path / "table.md", tmp_path / "table.png"
    names = ["bad-5way-1shot-table.yaml", "good.yaml", "elsewhere.yaml"]
    finished = table(runs, *names, "--plot", str(plot), "--markdown", str(written))
    assert finished.returncode == 0, finished.stderr
    rows = [line.split(" | ") for line in finished.stdout.splitlines() if line.startswith("| ")]
    assert [row[1] for row in rows] == ["learner", "---", "good", "bad"]
    assert "left out, because it answered other episodes: elsewhere" in finished.stdout
    assert written.read_text().strip() in finished.stdout
    with Image.open(plot) as picture:
        assert min(picture.size) > 200


def test_a_config_that_does_not_train_is_named_and_the_others_are_compared(runs):
    finished = table(runs, "good.yaml", "bad.yaml", "there-is-none.yaml")
    assert finished.returncode == 1
    assert "failed: metarun train there-is-none.yaml" in finished.stdout
    assert "| 1 | good |" in finished.stdout
    assert "Traceback" not in finished.stderr


def test_nothing_to_compare_is_said_in_three_lines(tmp_path):
    finished = table(tmp_path / "runs", "there-is-none.yaml")
    assert finished.returncode == 2
    assert finished.stderr.splitlines()[-3:-1] == ["error: no run has a result", "where: the table"]
    assert "Traceback" not in finished.stderr
