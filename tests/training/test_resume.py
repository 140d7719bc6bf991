"""A run that was stopped and goes on is the uninterrupted run, byte for byte."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import shared_programs
from helpers.runs import (
    SEVERAL,
    SINGLE,
    assert_same_run,
    last_checkpoints,
    lines,
    read_json,
    results,
    train,
    weights,
)
from metarun import errors, signals
from metarun.progress import Progress
from metarun.runs import metrics
from metarun.runs.directory import RunDirectory

SIGNALS = [signal.SIGTERM, signal.SIGINT]


class Stopping(Progress):
    """Sends this process a signal once a stage has reached a step."""

    def __init__(self, stage: str, step: int, number: int = signal.SIGTERM) -> None:
        self.stage, self.step, self.number = stage, step, number

    def advanced(self, stage, step, count, seconds, metrics) -> None:
        if (stage, step) == (self.stage, self.step):
            os.kill(os.getpid(), self.number)


def train_until_signal(path: Path, text: str, stage: str, step: int, number: int) -> Path:
    """Train until the signal, and check that the state of that very step is saved."""
    with pytest.raises(signals.Stopped) as raised:
        train(path, text, progress=Stopping(stage, step, number))
    assert raised.value.exit_code == 128 + number
    status = read_json(path / "status.json")
    assert (status["status"], status["stage"], status["step"]) == ("preempted", stage, step)
    assert last_checkpoints(path)[stage].step == step
    return path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Callable[..., Path]:
    """A function that returns the run of a config that a signal stopped. No test changes it."""

    @functools.cache
    def make(text: str, stage: str, step: int, number: int) -> Path:
        return train_until_signal(tmp_path_factory.mktemp("stopped") / "run", text, stage, step, number)

    return make


@pytest.fixture
def stop(stopped, tmp_path) -> Callable[..., Path]:
    """A function that copies such a run into the test's own folder, for the test to go on with."""

    def copy(text: str, stage: str, step: int, number: int = signal.SIGTERM) -> Path:
        return shutil.copytree(stopped(text, stage, step, number), tmp_path / "run")

    return copy


def damage(path: Path, stage: str, folder: str = "weights") -> None:
    """Flip one bit in the largest file of a folder of the newest checkpoint."""
    newest = last_checkpoints(path)[stage].path
    files = [file for file in (newest / folder).rglob("*") if file.is_file()]
    file = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


# At step 10 a validation is due, at step 14 nothing is.
@pytest.mark.parametrize(("step", "number"), [(10, signal.SIGINT), (14, signal.SIGTERM)])
def test_a_resumed_run_is_the_uninterrupted_run(single, stop, step, number):
    run = stop(SINGLE, "maml", step, number)
    assert_same_run(train(run, resume=True), single)
    assert read_json(run / "status.json")["status"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("chunk", ["1", "null"])
def test_another_chunk_after_the_interruption_changes_nothing(single, stop, chunk):
    run = stop(SINGLE, "maml", 14)
    assert_same_run(train(run, SINGLE, f"training.chunk={chunk}", resume=True, fresh=True), single)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "step"), [("first", 14), ("second", 4), ("second", 20)])
def test_a_run_of_several_stages_goes_on_in_the_stage_where_it_was_stopped(several, stop, stage, step):
    run = stop(SEVERAL, stage, step)
    assert_same_run(train(run, SEVERAL, resume=True), several)


def test_a_run_of_other_numbers_is_traced_no_more_in_these_tests(single, tmp_path):
    """Else the suite takes twice as long; see `shared_programs`. A run of another size is traced."""
    traced = shared_programs.counts["traced"]
    other = train(tmp_path / "other", SINGLE, "seed=4", "algorithm.inner_lr=0.02", "training.steps=12")
    assert shared_programs.counts["traced"] == traced
    assert weights(other).keys() == weights(single).keys() and weights(other) != weights(single)
    train(tmp_path / "wide", SINGLE, "model.hidden=[9]", "training.steps=2", "evaluation.every=null")
    assert shared_programs.counts["traced"] == traced + 3  # start, chunk, measurement


def test_a_run_may_be_stopped_again_and_again(single, stop):
    run = stop(SINGLE, "maml", 4)
    for step in (8, 20):
        with pytest.raises(signals.Stopped):
            train(run, resume=True, progress=Stopping("maml", step))
    assert_same_run(train(run, resume=True), single)


@pytest.mark.parametrize("folder", ["weights", "memory"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_one_warning(
    single, stop, warnings_of_metarun, folder
):
    run = stop(SINGLE, "maml", 20)
    damage(run, "maml", folder)
    train(run, resume=True)
    assert_same_run(run, single)
    assert len(warnings_of_metarun) == 1
    assert str(run / "checkpoints/maml/20") in warnings_of_metarun[0]


@pytest.mark.slow
def test_a_stage_whose_last_checkpoint_is_damaged_is_trained_again_with_those_after_it(
    several, stop, warnings_of_metarun
):
    run = stop(SEVERAL, "second", 4)
    damage(run, "first")
    train(run, SEVERAL, resume=True)
    assert_same_run(run, several)
    assert len(warnings_of_metarun) == 1


def test_a_run_without_any_valid_checkpoint_begins_again(single, stop):
    run = stop(SINGLE, "maml", 4)
    damage(run, "maml")
    assert_same_run(train(run, resume=True), single)


def test_lines_after_the_checkpoint_are_forgotten_also_a_half_written_one(single, stop):
    run = stop(SINGLE, "maml", 14)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"stage": "maml", "replica": 0, "split": "train", "step": 13, "loss": 9.0}\n{"stage": "ma'
        )
    assert_same_run(train(run, resume=True), single)


def test_resuming_a_finished_run_changes_neither_numbers_nor_checkpoints(several, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(several, run)
    saved = [*(run / "checkpoints").rglob("*"), run / "metrics.jsonl"]
    before = [(path, path.stat().st_mtime_ns) for path in saved]
    train(run, SEVERAL, resume=True)
    assert_same_run(run, several)
    content = (run / "metrics.jsonl").read_bytes()
    assert content == (several / "metrics.jsonl").read_bytes()
    assert [(p, p.stat().st_mtime_ns) for p in saved if p.suffix != ".jsonl"] == [
        pair for pair in before if pair[0].suffix != ".jsonl"
    ]


def test_a_stop_after_the_last_step_leaves_a_run_that_resumes_to_its_result(single, stop):
    run = stop(SINGLE, "maml", 24)
    assert not (run / "result.json").exists()
    assert_same_run(train(run, resume=True), single)


def test_a_stop_during_the_final_evaluation_is_answered_before_the_next_stage_is_measured(several, tmp_path):
    measured: list[str] = []

    class StoppingInEvaluation(Progress):
        def measuring(self, stage, split, episodes) -> None:
            measured.append(stage)
            os.kill(os.getpid(), signal.SIGTERM)

    run = tmp_path / "run"
    with pytest.raises(signals.Stopped):
        train(run, SEVERAL, progress=StoppingInEvaluation())
    assert measured == ["first"]
    assert read_json(run / "status.json")["status"] == "preempted"
    assert_same_run(train(run, SEVERAL, resume=True), several)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=1", "seed"),
        ("training.steps=32", "training.steps"),
        ("algorithm.inner_lr=0.02", "algorithm.inner_lr"),
        ("evaluation.every=5", "evaluation.every"),
        ("task.shots=4", "task.shots"),
    ],
)
def test_a_resumed_run_refuses_a_config_that_gives_other_numbers(single, override, key):
    before = (single / "config.yaml").read_bytes()
    with pytest.raises(errors.ConfigError) as raised:
        train(single, SINGLE, override, resume=True)
    assert raised.value.exit_code == 3
    assert raised.value.what.endswith(f": {key}")
    assert (single / "config.yaml").read_bytes() == before
    assert read_json(single / "status.json")["status"] == "done"


def test_device_checkpoint_cadence_and_chunks_may_change_on_resume(single, stop):
    run = stop(SINGLE, "maml", 14)
    allowed = ("accelerator.platform=auto", "checkpoint={every: 5, keep: 1}", "training.chunk=3")
    train(run, SINGLE, *allowed, resume=True)
    assert lines(run) == lines(single)
    assert results(run) == results(single)


def test_resume_without_a_run_begins_one(single, tmp_path):
    assert_same_run(train(tmp_path / "new/run", resume=True), single)


@pytest.mark.parametrize("left", [["lock"], ["lock", "metrics.jsonl"], ["lock", "metrics.jsonl", "log.txt"]])
def test_a_run_killed_before_it_had_a_config_begins_again(tmp_path, left):
    for name in left:
        (tmp_path / name).touch()
    with RunDirectory.open(tmp_path, True) as run:
        assert not run.resumed


def test_a_run_is_not_overwritten_without_resume(single):
    before = lines(single)
    with pytest.raises(errors.RunDirectoryError, match="--resume"):
        train(single)
    assert lines(single) == before


def test_a_run_that_another_holds_is_left_alone(stop):
    run = stop(SINGLE, "maml", 4)
    before = lines(run)
    with RunDirectory.open(run, True), pytest.raises(errors.RunDirectoryError, match=str(os.getpid())):
        train(run, resume=True)
    assert lines(run) == before


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signalled_process_saves_its_state_and_exits_with_128_plus_the_signal(tmp_path, number):
    file, run = tmp_path / "endless.yaml", tmp_path / "run"
    file.write_text(SINGLE)
    endless = ["training.steps=100000000", "evaluation.every=null", "checkpoint.every=null"]
    command = [sys.executable, "-m", "metarun", "train", str(file), *endless, "--run-dir", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not ((run / "metrics.jsonl").is_file() and lines(run)):
            time.sleep(0.05)
        process.send_signal(number)
        _, messages = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + number, messages
    assert "--resume" in messages
    assert "Traceback" not in messages
    assert read_json(run / "status.json")["status"] == "preempted"
    assert last_checkpoints(run)["maml"].step == metrics.read(run / "metrics.jsonl")[-1]["step"]
