"""How a run tells of itself on disk while it goes on and when it ends: status.json and log.txt."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metarun import errors, stopping
from metarun.runs import directory, files
from metarun.runs.directory import RunDirectory

logger = logging.getLogger("metarun")


@contextmanager
def reported(run: RunDirectory) -> Iterator[None]:
    """Leave in status.json how the run ended."""
    run.status("running", *reached(run))
    try:
        yield
    except stopping.Stopped as stop:
        run.status("preempted", *reached(run), message=str(stop))
        raise
    except errors.DivergedError as error:
        run.status("diverged", *reached(run), message=error.what)
        raise
    except BaseException as error:
        logger.debug("the run failed", exc_info=True)
        run.status("failed", *reached(run), message=f"{type(error).__name__}: {error}"[:500])
        raise


def reached(run: RunDirectory) -> tuple[str | None, int | None]:
    """Stage and step of the last checkpoint, as status.json has them."""
    try:
        status = json.loads((run.path / directory.STATUS).read_text())
        return status["stage"], status["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


class LogFile(logging.FileHandler):
    """A log that a full disk cuts short in silence: what goes to the user is said elsewhere, in three lines."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Copy what the logger says, tracebacks included, to the run's log."""
    with files.storage_errors(path):
        handler = LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(logging.DEBUG)
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()
