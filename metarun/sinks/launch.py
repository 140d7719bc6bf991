"""One process for each sink of a run, beside the training, which waits for none of them.

A thread that sleeps looks after them. If a sink ends early or stands still, the log has one warning, the training goes
on, and `metarun sync` copies the rest.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import metarun
from metarun import errors
from metarun.runs import directory, files
from metarun.sinks import bookmark

logger = logging.getLogger("metarun")

LOOK = 2.0  # seconds between two looks at the processes
# Seconds without progress, while there are new lines, after which a sink counts as blocked.
STANDSTILL = 300.0
PATIENCE = 15.0  # seconds that a run which is done waits for the last lines to arrive


class Follower:
    """The process of one sink."""

    def __init__(self, run: Path, name: str) -> None:
        self.run, self.name, self.warned = run, name, False
        self.log = run / bookmark.FOLDER / f"{name}.log"
        self.process = start(run, name, self.log)
        self.moved, self.came_to = time.monotonic(), -1

    def look(self) -> None:
        """Warn if the process is gone or stands still."""
        if self.process.poll() is not None:
            self.warn(f"has ended with code {self.process.returncode}")
        elif (place := self.read_place()) != self.came_to:
            self.moved, self.came_to = time.monotonic(), place
        elif (self.run / directory.METRICS).stat().st_size <= place:
            self.moved = time.monotonic()
        elif time.monotonic() - self.moved > STANDSTILL:
            self.warn(f"has copied nothing for {STANDSTILL:.0f} s")

    def read_place(self) -> int:
        """Return how many bytes of the metrics are copied."""
        return bookmark.read(bookmark.find_path(self.run, self.name, None)).size

    def warn(self, what: str) -> None:
        """Say it once; the training goes on."""
        if not self.warned:
            self.warned = True
            message = (
                "the sink %s %s (see %s); no training waits for it: `metarun sync %s --to %s` copies the rest"
            )
            logger.warning(message, self.name, what, self.log, self.run, self.name)

    def hang_up(self) -> None:
        """Let the process copy what is left, and end."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def end(self, deadline: float) -> None:
        """Warn if the process has not ended well by the deadline."""
        try:
            if self.process.wait(max(0.0, deadline - time.monotonic())):
                self.warn(f"has ended with code {self.process.returncode}")
        except subprocess.TimeoutExpired:
            self.warn("still copies")


def start(run: Path, name: str, log: Path) -> subprocess.Popen:
    """Start the process. Ctrl-C does not reach it; its standard input ends with this process."""
    root = str(Path(metarun.__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    files.make_folder(log.parent, run)
    with files.open_to_append(log) as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "metarun.sinks", str(run.absolute()), name],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )


@contextmanager
def follow(run: Path, names: Sequence[str]) -> Iterator[list[Follower]]:
    """Copy the metrics of a run to sinks as long as the context lasts. Nothing here can fail the run."""
    followers = list(filter(None, (try_to_start(run, name) for name in names)))
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(followers, ended), name="sinks", daemon=True)
    if followers:
        watcher.start()
    patience = 0.0
    try:
        yield followers
        patience = PATIENCE
    finally:
        ended.set()
        if followers:
            watcher.join()
        for follower in followers:
            follower.hang_up()  # all of them, before any is waited for
        deadline = time.monotonic() + patience
        for follower in followers:
            follower.end(deadline)


def try_to_start(run: Path, name: str) -> Follower | None:
    """Start a follower, or warn."""
    try:
        return Follower(run, name)
    except (OSError, errors.StorageError) as error:
        what = f"{error.what}: {error.where}" if isinstance(error, errors.StorageError) else error
        logger.warning("the sink %s does not start: %s; `metarun sync` copies the metrics later", name, what)
        return None


def watch(followers: list[Follower], ended: threading.Event) -> None:
    """Look after the followers until the run ends."""
    while not ended.wait(LOOK):
        for follower in followers:
            try:
                follower.look()
            except (OSError, errors.MetarunError) as error:
                follower.warn(f"cannot be watched: {error}")
