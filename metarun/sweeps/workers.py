"""The processes that train the programs of a sweep: at most one a device, each with a log of its own.

A program is a `metarun train`. It ends with this process, however this process ends, so that a killed sweep leaves
nothing behind that still trains; what it has saved is where the next call goes on.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from metarun import errors, signals
from metarun.runs import files, regular_files
from metarun.sweeps.course import CONFIG
from metarun.sweeps.programs import Program
from metarun.sweeps.sweep_directory import SweepDirectory

LOG = "log.txt"
DIVERGED, IN_USE = errors.DivergedError.exit_code, errors.RunDirectoryError.exit_code
PAUSE = 0.05  # seconds between two looks at the processes
LONG_PAUSE = 1.0  # seconds before a program that another process holds is tried again
TRIES = 5  # starts of a program whose run directory a dying process may still hold
PARENT_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG
PRELOADED = ctypes.CDLL(None) if sys.platform == "linux" else None


class Slot(NamedTuple):
    """A place for one process."""

    device: str | None  # for CUDA_VISIBLE_DEVICES; None: the process sees what this one sees


class Work(NamedTuple):
    """A program that trains."""

    program: Program
    slot: Slot
    process: subprocess.Popen
    claim: int  # the descriptor that holds the program
    began: float


class Report(NamedTuple):
    """What is told about a program."""

    started: Callable[[Program, Slot], None] = lambda program, slot: None
    ended: Callable[[Program, float, str], None] = lambda program, seconds, outcome: None
    waiting: Callable[[int], None] = lambda programs: None  # for so many that other processes train


class Outcome(NamedTuple):
    """How the programs of a rung have ended."""

    failed: dict[str, int]  # {program: exit code}; the next call tries them again
    elsewhere: int  # programs that other processes still train, if they are not waited for


def train(
    sweep: SweepDirectory, listed: Sequence[Program], slots: Sequence[Slot], report: Report, wait: bool
) -> Outcome:
    """Train the programs that have no result yet, until none is left.

    Args:
      wait: for the programs that other processes train.

    Raises:
      Stopped: a signal asked for it; the programs have saved their states.
    """
    queue = [program for program in listed if sweep.find_state(program.name) == "waiting"]
    free, failed, tries = list(slots), dict[str, int](), dict[str, int]()
    with signals.StopRequest() as stop, contain([]) as working:
        while queue or working:
            held = start_free(sweep, queue, free, working, report)
            if stop.signal is not None:
                end(working, stop.signal)
                stop.check()
            for work in [work for work in working if work.process.poll() is not None]:
                working.remove(work)
                free.append(work.slot)
                tries[work.program.name] = tries.get(work.program.name, 0) + 1
                settle(sweep, work, queue, failed, report, tries[work.program.name])
            if queue and not working and held == len(queue):
                if not wait:
                    return Outcome(failed, held)
                report.waiting(held)
                time.sleep(LONG_PAUSE)
            queue[:] = [program for program in queue if sweep.find_state(program.name) == "waiting"]
            time.sleep(PAUSE)
    return Outcome(failed, 0)


def start_free(
    sweep: SweepDirectory, queue: list[Program], free: list[Slot], working: list[Work], report: Report
) -> int:
    """Start programs while there are places; return how many of those that are left other processes hold."""
    held = 0
    for program in list(queue):
        if not free:
            break
        claim = sweep.claim(program.name)
        if claim is None:
            held += 1
            continue
        queue.remove(program)
        if sweep.find_state(program.name) != "waiting":  # another process has just ended it
            os.close(claim)
            continue
        slot = free.pop(0)
        report.started(program, slot)
        working.append(Work(program, slot, start(sweep, program, slot), claim, time.monotonic()))
    return held


def start(sweep: SweepDirectory, program: Program, slot: Slot) -> subprocess.Popen:
    """Start the process of a program; it goes on with what is there."""
    folder = sweep.find_program(program.name)
    command = [sys.executable, "-m", "metarun", "train", str(folder / CONFIG)]
    command += ["--run-dir", str(sweep.find_run(program.name)), "--resume"]
    environment = dict(os.environ)
    if slot.device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = slot.device
    with files.storage_errors(folder / LOG), files.open_to_append(folder / LOG) as log:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C comes to this process alone, which passes it on
            preexec_fn=die_with_parent,
        )


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it ends; Linux only."""
    if PRELOADED is not None:
        PRELOADED.prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def settle(
    sweep: SweepDirectory,
    work: Work,
    queue: list[Program],
    failed: dict[str, int],
    report: Report,
    tries: int,
) -> None:
    """Note how a program has ended, and let go of it."""
    code, state = work.process.returncode, sweep.find_state(work.program.name)
    os.close(work.claim)
    seconds = time.monotonic() - work.began
    if state != "waiting":
        report.ended(work.program, seconds, state)
    elif code == IN_USE and tries < TRIES:
        queue.append(work.program)
        time.sleep(LONG_PAUSE)
    else:
        failed[work.program.name] = code
        report.ended(work.program, seconds, f"failed with exit code {code}")


def end(working: list[Work], number: int) -> None:
    """Ask all processes to save and stop, and wait for them."""
    for work in working:
        with contextlib.suppress(ProcessLookupError):
            work.process.send_signal(number)
    for work in working:
        work.process.wait()


@contextlib.contextmanager
def contain(working: list[Work]) -> Iterator[list[Work]]:
    """Leave no process behind, whatever ends the `with`."""
    try:
        yield working
    finally:
        for work in working:
            if work.process.poll() is None:
                work.process.kill()
                work.process.wait()
            with contextlib.suppress(OSError):
                os.close(work.claim)


def read_last_words(sweep: SweepDirectory, program: str, lines: int = 3) -> list[str]:
    """Return the last lines of a program's log."""
    log: Path = sweep.find_program(program) / LOG
    try:
        return regular_files.read_bytes(log).decode("utf-8", "replace").splitlines()[-lines:]
    except (OSError, ValueError):
        return []


def name_devices(count: int) -> list[str]:
    """Return the names of the GPUs that this process sees, as CUDA_VISIBLE_DEVICES has them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in visible.split(",") if name.strip()] if visible else []
    return names[:count] if len(names) >= count else [str(index) for index in range(count)]


def make_slots(jobs: int, devices: Sequence[str] | None) -> list[Slot]:
    """Return the places for so many processes.

    Args:
      devices: the names of the devices that cannot be shared, of which each process gets one; None: a CPU, which
        processes share.
    """
    return [Slot(None)] * jobs if devices is None else [Slot(name) for name in devices[:jobs]]
