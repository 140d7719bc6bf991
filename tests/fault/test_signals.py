"""SIGTERM and SIGINT at any moment: an answer within seconds, and a run that goes on to the uninterrupted result.

A scheduler gives a process 30 seconds. Nothing here takes more than LONGEST: not a validation or an evaluation that
lasts for minutes, nor a compilation.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fault import pace
from fault.share import seed, share
from fault.test_kill import BOTH, IMPORTED, MANY, ONE, SINGLE
from helpers.attempts import attempt, make_start
from helpers.processes import environment
from helpers.runs import assert_same_run, read_json

HUNG = 300.0  # seconds without an answer, after which nobody waits any more
LONGEST = 5.0  # seconds from a signal to the end of the process, on cores that are free
NUMBERS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def start() -> Callable:
    """(arguments, file for the messages) -> the process of a training, which has just begun."""
    return make_start(IMPORTED, attempt)


def find_longest() -> float:
    """Return the seconds that an answer may take on this machine, where other processes wait for the cores, too."""
    return pace.allow(LONGEST) * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def describe_end(code: int | None, number: int, seconds: float, path: Path) -> str | None:
    """Return what is wrong with how a process has ended after a signal; None: nothing."""
    if code not in (0, 128 + number, -number):  # the last: it had not begun to listen
        return f"exit code {code} after {signal.Signals(number).name}"
    if code and seconds > find_longest():
        return f"{signal.Signals(number).name} was answered after {seconds:.1f} s"
    status = path / "status.json"
    if code == 128 + number and status.is_file() and read_json(status)["status"] != "preempted":
        return f"the status is {read_json(status)['status']}"
    return None


@pytest.mark.parametrize(
    ("text", "overrides"), [(SINGLE, ONE), (BOTH, MANY)], ids=["one stage", "many learners"]
)
def test_a_run_that_gets_signals_ends_as_the_uninterrupted_one(start, tmp_path, attack, text, overrides):
    file, messages = tmp_path / "run.yaml", tmp_path / "messages"
    file.write_text(text)

    def begin(path: Path):
        return start([str(file), *overrides, "--run-dir", str(path)], messages)

    begin(tmp_path / "warm").join()  # fills the cache of compiled programs
    began = time.monotonic()
    (process := begin(tmp_path / "reference")).join()
    life = time.monotonic() - began
    assert process.exitcode == 0, messages.read_text()
    draws, runs = random.Random(seed()), 0
    while attack.tries < share(3):
        path = tmp_path / f"run-{runs}"
        while not (path / "result.json").is_file():
            process = begin(path)
            if attack.tries < share(3):
                process.join(draws.uniform(0, life))
                number = draws.choice(NUMBERS)
                sent = time.monotonic()
                if process.is_alive():
                    attack.tries += 1
                    os.kill(process.pid, number)
                process.join(HUNG)
                process.kill()
                process.join()
                fault = describe_end(process.exitcode, number, time.monotonic() - sent, path)
                if fault:
                    attack.fail(f"run {runs}: {fault}: {messages.read_text()[-500:]}")
            process.join()
        try:
            assert_same_run(path, tmp_path / "reference")
        except AssertionError as difference:
            attack.fail(f"run {runs}: {difference}")
        runs += 1


# What lasts for minutes, the overrides that make it so, and the words in the log after which it goes on.
LONG_WORK = {
    # As many inner steps as are unrolled (`inner_loop.UNROLLED`) of many layers compile for half a minute.
    "compilation": (["algorithm.inner_steps=16", f"model.hidden={[8] * 24}"], "begins after step"),
    "validation": (
        ["evaluation.every=4", "evaluation.episodes=100000", "evaluation.adapted_steps=2000"],
        "compiled in",
    ),
    "evaluation": (
        ["evaluation.every=null", "evaluation.episodes=100000", "evaluation.adapted_steps=2000"],
        "ended by steps",
    ),
}


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("work", LONG_WORK)
def test_what_lasts_for_minutes_is_left_at_once(tmp_path, attack, work, number):
    overrides, words = LONG_WORK[work]
    file, path, messages = tmp_path / "run.yaml", tmp_path / "run", tmp_path / "messages"
    file.write_text(SINGLE)
    loop = "unroll" if work == "compilation" else "scan"
    command = [sys.executable, "-m", "metarun", "train", str(file), *overrides, f"algorithm.loop={loop}"]
    # A compilation lasts for long only if it optimises, and if its result lies in no cache.
    flags = "" if work == "compilation" else None
    own = {**environment(flags=flags), "METARUN_CACHE": str(tmp_path / "cache")}
    with messages.open("w") as log:
        process = subprocess.Popen(
            [*command, "--run-dir", str(path)],
            env=own,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for_words(process, path / "log.txt", words)
        time.sleep(4.0)  # it traces and compiles, and is in the middle of its work
        assert process.poll() is None, messages.read_text()
        sent = time.monotonic()
        attack.tries += 1
        process.send_signal(number)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            attack.fail(f"{work}: no answer in a minute")
        seconds = time.monotonic() - sent
    finally:
        process.kill()
        process.wait()
    print(f"{work}: {signal.Signals(number).name} was answered after {seconds:.2f} s")
    if process.returncode != 128 + number or seconds > find_longest():
        attack.fail(f"{work}: exit code {process.returncode} after {seconds:.1f} s: {messages.read_text()}")
    assert read_json(path / "status.json")["status"] == "preempted"
    steps = sorted(int(folder.name) for folder in path.glob("checkpoints/maml/[0-9]*"))
    # What compiles is the training, or on a fast machine the validation after step 10.
    assert steps[-1:] in {"compilation": ([], [10]), "validation": ([4],), "evaluation": ([24],)}[work]


def wait_for_words(process: subprocess.Popen, log: Path, words: str) -> None:
    """Return when a log has the words."""
    while not (log.is_file() and words in log.read_text()):
        assert process.poll() is None, "the training has ended"
        time.sleep(0.05)
