"""kill -9 at any moment costs nothing but time: the run that goes on ends as the uninterrupted one, byte for byte.

Each attempt is a process of its own, forked from a server that has imported everything and computed nothing, so
that most of the kills hit the run and not its imports. METARUN_KILLS says how many kills there are in all; without it
the share does.
"""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fault.share import seed as fault_seed
from fault.share import share
from helpers.attempts import attempt, make_start
from helpers.runs import BOTH, SEVERAL, SINGLE, assert_same_run, read_json

KILLS = int(os.environ.get("METARUN_KILLS") or share(12))
IMPORTED = [
    "metarun.cli",
    "metarun.cli.progress_display",
    "metarun.cli.text_tables",
    "metarun.experiment",
    "helpers.runs",
]
IMPORTED += ["metarun.models.mlp", "metarun.algorithms.maml", "metarun.tasks.sinusoid"]
CADENCE = ("evaluation.every=50", "evaluation.checkpoint=best", "checkpoint.every=20")
ONE = ["training.steps=240", "training.chunk=2", *CADENCE]
TWO = [f"stages.{index}.training.{override}" for index in (0, 1) for override in ("steps=120", "chunk=2")]
TWO += CADENCE
MANY = [f"stages.{index}.training.{override}" for index in (0, 1) for override in ("steps=80", "chunk=2")]
MANY += CADENCE


@pytest.fixture(scope="module")
def start() -> Callable[..., multiprocessing.Process]:
    """(arguments, file for the messages) -> the process of an attempt, which has just begun."""
    return make_start(IMPORTED, attempt)


def finish(process: multiprocessing.Process, messages: Path) -> None:
    process.join()
    assert process.exitcode == 0, messages.read_text()


def kill(process: multiprocessing.Process, after: float) -> bool:
    """Whether kill -9, after so many seconds, came before the end of the process."""
    process.join(after)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def is_done(path: Path) -> bool:
    status = path / "status.json"
    return status.is_file() and read_json(status)["status"] == "done"


@pytest.mark.parametrize(
    ("text", "overrides", "kills", "seed"),
    [
        (SINGLE, ONE, KILLS - 2 * (KILLS // 3), 0),
        (SEVERAL, TWO, KILLS // 3, 1),
        (BOTH, MANY, KILLS // 3, 2),
    ],
    ids=["one stage", "two stages", "replicas and copies"],
)
def test_a_run_killed_at_any_moment_goes_on_to_the_uninterrupted_result(
    start, tmp_path, attack, text, overrides, kills, seed
):
    """Delays are spread evenly over the life of an uninterrupted process: start-up, steps, saves, evaluation."""
    file, messages = tmp_path / "killed.yaml", tmp_path / "messages"
    file.write_text(text)

    def arguments(path: Path) -> list[str]:
        return [str(file), *overrides, "--run-dir", str(path)]

    reference = tmp_path / "reference"
    finish(start(arguments(tmp_path / "warm"), messages), messages)  # fills the cache of compiled programs
    began = time.monotonic()
    finish(start(arguments(reference), messages), messages)
    life = time.monotonic() - began
    delays, runs, delivered = random.Random(fault_seed() + seed), 0, 0
    while delivered < kills:
        path = tmp_path / f"run-{runs}"
        while not is_done(path):
            process = start(arguments(path), messages)
            if delivered < kills:
                delivered += kill(process, delays.uniform(0, life))
            else:
                finish(process, messages)
        try:
            assert_same_run(path, reference)
        except AssertionError as difference:
            attack.fail(f"run {runs}, killed at some moments of {life:.1f} s: {difference}")
        runs += 1
    attack.tries += delivered
    assert runs > 0


MODELS = """
task: {name: sinusoid, shots: 5, queries: 5}
stages:
  - {name: members, MODEL, algorithm: {name: maml}, copies: 3, training: TRAINING}
  - {name: pooled, MODEL, algorithm: {name: pretrain}, training: TRAINING}
  - {name: extracted, MODEL, algorithm: {name: extraction, pretrained: pooled}, training: TRAINING}
  - {name: student, model: {name: mlp, hidden: [4]}, algorithm: {name: maml}, training: TRAINING}
  - {name: distilled, MODEL, algorithm: {name: distillation, teachers: [members], student: student}, training: TRAINING}
  - {name: fused, MODEL, algorithm: {name: fusion, members: [members, extracted]}, training: TRAINING}
evaluation: {every: 25, episodes: 6}
checkpoint: {every: 10, keep: 2}
accelerator: {platform: cpu, devices: 1}
seed: 4
""".replace("TRAINING", "{steps: 50, tasks_per_step: 4, chunk: 1}").replace(
    "MODEL", "model: {name: mlp, hidden: [8]}"
)


def test_a_run_of_many_models_killed_in_each_of_its_stages_ends_as_the_uninterrupted_one(
    start, tmp_path, attack
):
    file, messages, path = tmp_path / "models.yaml", tmp_path / "messages", tmp_path / "killed"
    file.write_text(MODELS)
    finish(start([str(file), "--run-dir", str(tmp_path / "reference")], messages), messages)
    for stage in ("members", "pooled", "extracted", "student", "distilled", "fused"):
        process = start([str(file), "--run-dir", str(path)], messages)
        while process.is_alive() and not stepped(path, stage):
            time.sleep(0.005)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"{stage}: {messages.read_text()}"
        assert not is_done(path)
        attack.tries += 1
    finish(start([str(file), "--run-dir", str(path)], messages), messages)
    assert_same_run(path, tmp_path / "reference")


def stepped(path: Path, stage: str) -> bool:
    """Whether the stage has taken an outer step."""
    lines = path / "metrics.jsonl"
    return lines.is_file() and f'"stage": "{stage}"' in lines.read_text()
