"""What a run says on disk while it goes on and when it ends: status.json and log.txt."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metarun import errors, signals
from metarun.plain_text import PlainFormatter
from metarun.runs import directory, files
from metarun.runs.directory import RunDirectory

logger = logging.getLogger("metarun")


@contextmanager
def report_status(run: RunDirectory) -> Iterator[None]:
    """Leave in status.json how the run ended."""
    run.write_status("running", *read_progress(run))
    try:
        yield
    except signals.Stopped as stop:
        run.write_status("preempted", *read_progress(run), message=str(stop))
        raise
    except errors.DivergedError as error:
        run.write_status("diverged", *read_progress(run), message=error.what)
        raise
    except BaseException as error:
        logger.debug("the run failed", exc_info=True)
        run.write_status("failed", *read_progress(run), message=f"{type(error).__name__}: {error}"[:500])
        raise


def read_progress(run: RunDirectory) -> tuple[str | None, int | None]:
    """Return stage and step, as status.json has them: of the last checkpoint, or of a few seconds after it."""
    try:
        status = json.loads((run.path / directory.STATUS).read_text())
        return status["stage"], status["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


class LogFile(logging.Handler):
    """A log that a full disk cuts short in silence: another part tells the user, in three lines.

    Each record is one write. Nothing waits in a buffer, so closing the file cannot fail on a full disk.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, f"{self.format(record)}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        super().close()


@contextmanager
def copy_log(path: Path) -> Iterator[None]:
    """Copy what the logger says, tracebacks included, to the run's log."""
    with files.storage_errors(path):
        handler = LogFile(path)
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
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
