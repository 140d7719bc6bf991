"""Links, pipes and second names all over a run that somebody goes on with: nothing outside the run is changed."""

import contextlib
import os
import random
import shutil
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fault.share import seed, share
from helpers.runs import train
from metarun import errors, signals
from metarun.progress import Progress

SECONDS = 180  # that a try may take; one that hangs takes for ever
ALLOWED = (4, 5, 6, 8)  # exit codes of a refusal
# What a run may have, beside the files and folders that the stopped run has already.
MORE = (
    "code",
    "sinks",
    "tensorboard",
    "wandb",
    "pictures",
    "episodes",
    "result.json",
    "sources.json",
    "ceiling.json",
)
MORE += (
    "task.json",
    "code/hashes.json",
    "sinks/tensorboard.lock",
    "episodes/maml-test.npz",
    "checkpoints/maml/24",
)


class Stopping(Progress):
    """Sends this process SIGTERM at step 14."""

    def advanced(self, stage, step, count, seconds, metrics) -> None:
        if step == 14:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run that a signal has stopped."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(signals.Stopped):
        train(path, progress=Stopping())
    return path


def put_socket(place: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        here = Path.cwd()
        os.chdir(place.parent)  # the name of a socket may have 107 letters at most
        try:
            end.bind(place.name)
        finally:
            os.chdir(here)


KINDS: dict[str, Callable[[Path, Path], object]] = {
    "a link to a file": lambda place, precious: place.symlink_to(precious / "file"),
    "a link to a folder": lambda place, precious: place.symlink_to(precious),
    "a link to nowhere": lambda place, precious: place.symlink_to(precious / "nothing"),
    "a link to itself": lambda place, _: place.symlink_to(place.name),
    "a second name": lambda place, precious: os.link(precious / "file", place),
    "a pipe": lambda place, _: os.mkfifo(place),
    "a socket": put_socket,
}


def make_precious(folder: Path) -> dict[str, tuple]:
    """Make what nobody may change, and return it."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "below").mkdir(parents=True)
    for name in ("file", "config.yaml", "below/file"):
        (folder / name).write_text("precious")
    return describe(folder)


def damage(run: Path, precious: Path, draw: random.Random) -> list[str]:
    """Put something hostile in one place of a run, or in several, and return what."""
    here = [path.relative_to(run).as_posix() for path in sorted(run.rglob("*"))]
    shallow, what = [place for place in here if place.count("/") < 3], []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        name, kind = draw.choice([*shallow, *MORE]), draw.choice(list(KINDS))
        place = run / name
        with contextlib.suppress(OSError, RuntimeError):  # something hostile is on the way already
            if place.parent.resolve().is_relative_to(run.resolve()):
                place.parent.mkdir(parents=True, exist_ok=True)
        if place.parent.is_dir() and place.parent.resolve().is_relative_to(run.resolve()):
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)
            KINDS[kind](place, precious)
            what.append(f"{name} is {kind}")
    return what


def describe(folder: Path) -> dict[str, tuple]:
    """Return what lies in a folder, whole."""
    return {
        path.relative_to(folder).as_posix(): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise TimeoutError in a try that waits, such as for the writer of a pipe."""

    def end(*_: object) -> None:
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_whoever_goes_on_with_a_hostile_run_changes_nothing_outside_it(attack, tmp_path, stopped):
    precious, draw = tmp_path / "precious", random.Random(seed())
    before = make_precious(precious)
    for index in range(share(60)):
        run = shutil.copytree(stopped, tmp_path / f"run-{index}" / "run")
        what = damage(run, precious, draw)
        attack.tries += bool(what)
        try:
            with time_limit():
                train(run, resume=True, pictures=index % 10 == 0)
        except errors.MetarunError as error:
            if error.exit_code not in ALLOWED:
                attack.fail(f"{what}: exit code {error.exit_code}: {error}")
        except BaseException:
            attack.fail(f"{what}: {traceback.format_exc(limit=-4)}")
        if describe(precious) != before:
            attack.fail(f"{what}: what lies outside the run has changed")
            before = make_precious(precious)
        shutil.rmtree(run.parent)
