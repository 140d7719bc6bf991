"""Commands on a run that was damaged or edited: three lines and the right exit code, or what was skipped is named."""

import json
import os
import shutil
from pathlib import Path

import pytest

import metarun
from helpers.commands import assert_three_lines
from helpers.runs import SINGLE, assert_same_run, read_json, train
from metarun import errors
from metarun.finished.finished_run import find_run
from metarun.runs import metrics, seals

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")


@pytest.fixture
def run(single, tmp_path) -> Path:
    """A copy of a finished run, with a checkpoint of step 20, the best, and one of step 24, the last."""
    return shutil.copytree(single, tmp_path / "run")


def replace(file: Path, old: str, new: str) -> None:
    """Change the first place of a text in a file."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_every_command_refuses_a_run_whose_config_was_edited(metarun_, run, single):
    replace(run / "config.yaml", "shots: 5", "shots: 6")
    support = ("--support", "support.csv", "--query", "queries.csv")
    for arguments in (
        ("eval", run),
        ("compare", run, single),
        ("compare", run, single, "--steps-curve"),
        ("predict", run, *support),
        ("online", run),
        ("embed", run),
        ("export", run, "--out", "learner.metarun"),
        ("report", run),
        ("sync", run, "--to", "tensorboard"),
        ("train", "--resume", run),
        ("train", "--resume", run, "--dry-run"),
        ("train", "--extend", run, "training.steps=30"),
    ):
        assert_three_lines(metarun_(*arguments), 5, "config.yaml was changed after", str(run / "config.yaml"))
    (listed,) = json.loads("\n".join(metarun_("runs", run, "--json").out))["runs"]
    assert "config.yaml was changed" in listed["problem"] and listed["steps"] is None
    for call in (
        lambda: metarun.load(run),
        lambda: metarun.Run(run).config,
        lambda: metarun.train(run, resume=True),
    ):
        with pytest.raises(errors.CheckpointError, match="was changed after"):
            call()


def test_a_stage_that_starts_from_an_edited_run_is_refused(metarun_, run, tmp_path):
    replace(run / "config.yaml", "seed: 0", "seed: 1")
    config_file = tmp_path / "next.yaml"
    config_file.write_text(SINGLE)
    assert_three_lines(metarun_("train", config_file, f"init_from={run}"), 5, "config.yaml was changed after")


def test_a_damaged_newest_checkpoint_needs_allow_older_and_the_json_names_both(metarun_, run):
    intact = read_json(run / "result.json")["stages"]["maml"]
    replace(run / "checkpoints/maml/24/manifest.json", '"best": false', '"best": true')
    assert_three_lines(metarun_("eval", run), 5, "its manifest is damaged", "--allow-older")
    said = metarun_("eval", os.path.relpath(run), "--allow-older", "--json")
    result = json.loads(said.out[-1])
    assert (said.code, result["step"]) == (0, 20)
    assert result["stages"]["maml"] != intact
    ((skipped, why),) = [(entry["checkpoint"], entry["why"]) for entry in result["skipped"]]
    assert skipped == str(run / "checkpoints/maml/24") and "was changed after it was written" in why
    with pytest.raises(errors.CheckpointError, match="allow_older=True"):
        metarun.load(run)
    learner = metarun.load(run, allow_older=True)
    assert (learner.step, len(learner.skipped)) == (20, 1)
    assert metarun.evaluate(run, allow_older=True)["skipped"] == result["skipped"]


def test_a_checkpoint_that_was_measured_and_is_gone_is_not_replaced_in_silence(metarun_, run):
    shutil.rmtree(run / "checkpoints/maml/24")
    assert_three_lines(metarun_("eval", run), 5, "step 24, is gone", "--allow-older")
    result = json.loads(metarun_("eval", run, "--allow-older", "--json").out[-1])
    assert (result["step"], len(result["skipped"])) == (20, 1)
    assert find_run(run / "checkpoints/maml/20").stage == "maml"  # it was named: nothing stands in


def test_an_intact_run_says_nothing_of_skipped_checkpoints(metarun_, run):
    assert "skipped" not in json.loads(metarun_("eval", run, "--json").out[-1])


def test_a_damaged_line_costs_neither_the_run_nor_its_result(metarun_, run, single):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    lines[4] = b"\x00" + lines[4][1:]
    (run / "metrics.jsonl").write_bytes(b"".join(lines))
    (run / "result.json").unlink()
    train(run, SINGLE, resume=True)
    assert read_json(run / "status.json")["status"] == "done"
    assert (run / "metrics.damaged").read_bytes() == b"5\t" + lines[4]
    assert "damaged lines of" in (run / "log.txt").read_text() and "line 5" in (run / "log.txt").read_text()
    assert list(metrics.read(run / "metrics.jsonl")) == [
        row for number, row in enumerate(metrics.read(single / "metrics.jsonl"), start=1) if number != 5
    ]
    assert read_json(run / "result.json")["stages"] == read_json(single / "result.json")["stages"]


def test_a_resumed_run_with_another_cadence_is_opened_as_ever(run, single):
    before = (run / "config.yaml").read_text()
    train(run, SINGLE, "checkpoint.keep=3", resume=True)
    assert (run / "config.yaml").read_text() != before
    seals.check(run)
    assert find_run(run).config.checkpoint.keep == 3
    assert_same_run(run, single)
