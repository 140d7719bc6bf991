"""What a run says on disk while it goes on and when it ends: status.json and log.txt."""

import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metarun import errors, signals
from metarun.plain_text import PlainFormatter
from metarun.runs import directory, files, regular_files
from metarun.runs.directory import RunDirectory

logger = logging.getLogger("metarun")


@contextmanager
def report_status(run: RunDirectory) -> Iterator[None]:
    """Leave in status.json how the run ended. If the disk refuses that, what has ended the run matters more.

    A run that refuses to go on, before it has done anything, stands as it stood.
    """
    before, progress = read_content(run) if run.resumed else None, read_progress(run)
    run.write_status("running", *progress)
    try:
        yield
    except signals.Stopped as stop:
        note_end(run, "preempted", str(stop))
        raise
    except errors.DivergedError as error:
        note_end(run, "diverged", error.what)
        raise
    except BaseException as error:
        logger.debug("the run failed", exc_info=True)
        if before is not None and isinstance(error, directory.REFUSALS) and read_progress(run) == progress:
            with contextlib.suppress(errors.StorageError):
                files.write_sealed(run.path / directory.STATUS, before)
        else:
            note_end(run, "failed", f"{type(error).__name__}: {error}"[:500])
        raise


def note_end(run: RunDirectory, status: str, message: str) -> None:
    """Write how the run ended, or warn that this cannot be written."""
    try:
        run.write_status(status, *read_progress(run), message=message)
    except errors.StorageError as error:
        logger.warning("%s does not say how the run ended: %s", directory.STATUS, error.what)


def read_content(run: RunDirectory) -> dict[str, Any] | None:
    """Return what status.json says; None: it says nothing, or cannot be read."""
    try:
        content: dict[str, Any] = regular_files.read_sealed(run.path / directory.STATUS)
    except (OSError, ValueError):
        return None
    return content


def read_progress(run: RunDirectory) -> tuple[str | None, int | None]:
    """Return stage and step, as status.json has them: of the last checkpoint, or of a few seconds after it."""
    content = read_content(run) or {}
    return (content["stage"], content["step"]) if content.keys() >= {"stage", "step"} else (None, None)


class LogFile(logging.Handler):
    """A log that a full disk cuts short in silence: another part tells the user, in three lines.

    Each record is one write. Nothing waits in a buffer, so closing the file cannot fail on a full disk.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = files.open_own(path, os.O_WRONLY | os.O_APPEND)
        super().__init__()  # at the end of the process logging closes what has begun so

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
def copy_log(path: Path | None) -> Iterator[None]:
    """Copy what the logger says, tracebacks included, to the run's log; None: another process has the log.

    Raises:
      StorageError: the log cannot be opened.
    """
    if path is None:
        yield
        return
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
