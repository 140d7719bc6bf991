"""metrics.jsonl: one JSON object a line. The truth about a run; every other sink is a view of it."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from metarun import errors
from metarun.runs import files, strict_json


class MetricsFile:
    """Appends lines, a whole batch or none of it, and is cut back to a checkpoint on resume."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with files.storage_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Adds one line a row, in one write. NaN and infinities become strings, which `float` reads."""
        content = "".join(f"{strict_json.encode(row)}\n" for row in rows).encode()
        before = self.size()
        with files.storage_errors(self.path):
            try:
                files.write_all(self._descriptor, content)
            except BaseException:
                os.ftruncate(self._descriptor, before)
                raise

    def size(self) -> int:
        """Bytes so far: what a checkpoint records, and `truncate` takes."""
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        """Returns when all lines are on the disk: to be called before a checkpoint records `size()`."""
        with files.storage_errors(self.path):
            os.fsync(self._descriptor)

    def truncate(self, size: int) -> None:
        """Forgets the lines after a checkpoint, and with them a half-written last one.

        Raises CheckpointError if the file is shorter: lines that the checkpoint counts on are gone.
        """
        if self.size() < size:
            what = f"{self.path.name} has {self.size()} bytes; the checkpoint was saved after {size}"
            raise errors.CheckpointError(what, str(self.path), "restore the file, or begin a new run")
        with files.storage_errors(self.path):
            os.ftruncate(self._descriptor, size)
            os.fsync(self._descriptor)

    def read(self) -> list[dict[str, Any]]:
        """All complete lines."""
        return read(self.path)

    def close(self) -> None:
        """Gives the file back to the system; nothing is buffered."""
        os.close(self._descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a run that may still be running: a half-written last one is left out.

    Raises DataError for a missing file, and for a complete line that is no JSON object.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise errors.DataError("no metrics here", str(path), "give the directory of a run") from error
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise errors.DataError("a line is no JSON object", where, "restore the file or remove the line")
    return row
