"""`metarun table` on finished runs: it trains only what has no result."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.commands import assert_three_lines
from helpers.finished_runs import COUNT, make_run
from metarun.cli import table as command_file

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")


@pytest.fixture
def runs(tmp_path) -> Path:
    values = np.random.default_rng(0).normal(3, 2, COUNT)
    for name, shift, digest in (("good", 0.0, "abc"), ("bad", 0.2, "abc"), ("elsewhere", 0.0, "other")):
        make_run(tmp_path / "runs" / name, values + shift, digest=digest)
    return tmp_path / "runs"


def read_rows(lines: list[str]) -> list[list[str]]:
    return [line.split(" | ") for line in lines if line.startswith("| ")]


def test_finished_runs_are_ranked_and_those_on_other_episodes_are_named(metarun_, runs, tmp_path):
    written, plot = tmp_path / "table.md", tmp_path / "table.png"
    names = ["bad.yaml", "good.yaml", "elsewhere.yaml"]
    said = metarun_("table", *names, "--runs", runs, "--plot", plot, "--markdown", written)
    assert said.code == 0, said
    assert [row[1] for row in read_rows(said.out)] == ["learner", "---", "good", "bad"]
    assert said.out[0] == "left out, because it answered other episodes: elsewhere"
    assert written.read_text().splitlines() == said.out[1:]
    with Image.open(plot) as picture:
        assert min(picture.size) > 200


def test_a_config_that_does_not_train_is_named_and_the_others_are_compared(metarun_, runs):
    said = metarun_("table", "good.yaml", "bad.yaml", "there-is-none.yaml", "--runs", runs)
    assert said.code == 1
    assert said.out[0] == "failed: metarun train there-is-none.yaml"
    assert read_rows(said.out)[2][:2] == ["| 1", "good"]
    assert not any("Traceback" in line for line in said.err)


def test_nothing_to_compare_is_said_in_three_lines(metarun_, tmp_path):
    said = metarun_("table", "there-is-none.yaml", "--runs", tmp_path / "runs")
    assert_three_lines(said, 2, "error: no run has a result", "where: metarun table")


def test_what_is_not_trained_yet_is_trained_by_a_command_of_its_own_and_what_was_stopped_goes_on(
    metarun_, runs, monkeypatch
):
    commands = []

    def train(command, **_):
        commands.append(command[3:])
        if command[-1] != "--resume":
            make_run(runs / "new", np.random.default_rng(1).normal(3, 2, COUNT))

    monkeypatch.setattr(command_file.subprocess, "run", train)
    (runs / "stopped").mkdir()
    said = metarun_("table", "good.yaml", "new.yaml", "stopped.yaml", "--runs", runs)
    assert commands == [
        ["train", "new.yaml", "--run-dir", str(runs / "new")],
        ["train", "stopped.yaml", "--run-dir", str(runs / "stopped"), "--resume"],
    ]
    assert said.code == 1  # of the run that has no result still
    assert {row[1] for row in read_rows(said.out)[2:]} == {"good", "new"}


def test_two_configs_of_one_name_are_refused(metarun_, runs):
    said = metarun_("table", "one/good.yaml", "other/good.yaml", "--runs", runs)
    assert_three_lines(said, 2, "good")
