"""What the processes of `test_two_processes` do: each function is the work of one of them, and ends it."""

import os
import random
import signal
import time
from pathlib import Path

from metarun import errors
from metarun.runs import new_run
from metarun.runs.directory import RunDirectory

WON, REFUSED, INTERLEAVED = 0, 6, 1
LINES = 20  # that a rival writes


def write_lines(path: Path, begin: float, patience: float) -> None:
    """Write a run if nobody else does; the exit code says which, or that the lines of others lie among its own."""
    time.sleep(max(0.0, begin - time.monotonic()))
    try:
        with RunDirectory.open(path, resume=True) as run:
            before = len(run.metrics.read())
            for step in range(LINES):
                run.metrics.append([{"pid": os.getpid(), "step": step}])
            time.sleep(patience)
            run.write_config("seed: 0\n")
            pids = [row["pid"] for row in run.metrics.read()[before:]]
            code = WON if pids == [os.getpid()] * LINES else INTERLEAVED
    except errors.MetarunError as error:
        code = error.exit_code
    os._exit(code)


def draw_folders(group: Path, count: int, names: int, seed: int) -> None:
    """Make folders for new runs where there are only so many names, and leave a file in each."""
    draw = random.Random(seed)
    new_run.draw_name = lambda: f"20260101-000000-{draw.randrange(names):08x}"
    for _ in range(count):
        (new_run.make_folder(group.name, group.parent) / str(os.getpid())).touch(exist_ok=False)


def hold(path: Path, ready: Path) -> None:
    """Hold a run until somebody kills this process."""
    RunDirectory.open(path, resume=True).write_config("seed: 0\n")
    ready.touch()
    signal.pause()
