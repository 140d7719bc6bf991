"""metrics.jsonl: one JSON object a line. All that a run reports elsewhere comes from these lines.

A line begins with stage, replica, member (in a stage with copies), split and step. The splits are

train        the metrics of every outer step, of every learner
validation   mode, the metrics with their intervals, and the seconds of training before it, of every learner
speed        about one a second, of all learners together: learning_rate (of the step before), seconds (of training, in
             all), tasks_per_second (since the last such line), memory_peak_bytes (of a device; without one, of the
             process). Times differ from run to run, so these lines are no part of what a resumed run repeats.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from metarun import errors
from metarun.runs import damaged_lines, files, metric_rows, regular_files, strict_json
from metarun.runs.metric_rows import Rows

BATCH = 1 << 20  # bytes that `read_on` reads at once
SPEED = "speed"  # the split of the lines that say how fast a training is


class Place(NamedTuple):
    """How far a reader has come."""

    size: int = 0  # bytes before it
    tail: bytes = b""  # the line that ends there


class Batch(NamedTuple):
    """Some lines, and the place behind them."""

    rows: list[dict[str, Any]]
    end: Place


class MetricsFile:
    """The open metrics.jsonl of a run. A batch of lines is appended whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = files.open_own(path, os.O_RDWR | os.O_APPEND)
        self._digest = hashlib.sha256()  # of the lines that were appended, or looked at by `mend`

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add one line for each row, in one write. NaN and infinities become strings, which `float` reads."""
        content = "".join(f"{strict_json.encode(row)}\n" for row in rows).encode()
        with files.storage_errors(self.path):
            before = self.size()
            try:
                files.write_all(self._descriptor, content)
            except BaseException:
                os.ftruncate(self._descriptor, before)
                raise
        self._digest.update(content)

    def begin_with(self, path: Path, size: int) -> None:
        """Begin with the first `size` bytes of the lines of another run, which ends there."""
        with files.storage_errors(self.path), _open(path) as file:
            left = size
            while content := file.read(min(left, BATCH)):
                files.write_all(self._descriptor, content)
                left -= len(content)

    def size(self) -> int:
        """Return the bytes so far. A checkpoint records this number, and `truncate` takes it."""
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        """Return when all lines are on the disk. Call it before a checkpoint records `size()`."""
        with files.storage_errors(self.path):
            os.fsync(self._descriptor)

    def truncate(self, size: int) -> None:
        """Remove the lines after a checkpoint, and with them a half-written last one.

        Raises:
          CheckpointError: the file is shorter, so lines that the checkpoint counts on are gone.
        """
        if self.size() < size:
            what = f"{self.path.name} has {self.size()} bytes; the checkpoint was saved after {size}"
            raise errors.CheckpointError(what, str(self.path), "restore the file, or begin a new run")
        with files.storage_errors(self.path):
            os.ftruncate(self._descriptor, size)
            os.fsync(self._descriptor)

    def mend(self, expected: str = "") -> None:
        """Set damaged lines aside, which are said in a warning; see `damaged_lines`.

        Args:
          expected: as of `damaged_lines.mend`.
        """
        self._digest = damaged_lines.mend(self.path, expected)

    def digest(self) -> str:
        """Return the SHA-256 of all lines, in hex. A checkpoint records it beside `size()`, and `mend` takes it."""
        return self._digest.hexdigest()

    def read(self) -> Rows:
        """Return all complete lines."""
        return read(self.path)

    def close(self) -> None:
        """Close the file. Nothing is buffered, so nothing is written now. Raises StorageError."""
        with files.storage_errors(self.path):
            os.close(self._descriptor)


def read(path: Path) -> Rows:
    """Return the lines of a run, which may still be running: a half-written last line is left out.

    They take about 80 bytes each, and the file is read line by line. Blank lines are passed over: they were damaged.

    Raises:
      DataError: there is no such file, it is of another kind, or a complete line is no JSON object.
    """
    with _open(path) as file:
        return metric_rows.make_rows(
            _parse(line, f"{path}:{number}")
            for number, line in enumerate(regular_files.read_lines(file), start=1)
            if line.endswith(b"\n") and not line.isspace()
        )


def read_on(path: Path, place: Place) -> Iterator[Batch]:
    """Yield the complete lines after a place, in batches; all of them if a resumed run has cut the file back since.

    Raises:
      DataError: there is no such file, it is of another kind, or a complete line is no JSON object.
    """
    with _open(path) as file:
        if not _is_behind(file, place):
            place = Place()
        while content := _read_lines(file, place.size):
            *lines, _ = content.split(b"\n")
            where = f"{path}, after byte {place.size}"
            rows = [_parse(line, where) for line in lines if line and not line.isspace()]
            place = Place(place.size + len(content), lines[-1])
            yield Batch(rows, place)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Open the lines of a run, and say what is wrong with the file.

    Raises:
      DataError: there is none, or it is of another kind.
    """
    with files.storage_errors(path):
        try:
            with regular_files.open_file(path) as file:
                yield file
        except FileNotFoundError as error:
            raise errors.DataError("no metrics here", str(path), "give the directory of a run") from error
        except regular_files.UnreadableError as error:
            what = f"the metrics cannot be read: {error}"
            raise errors.DataError(what, str(path), "restore the file") from error


def _is_behind(file: BinaryIO, place: Place) -> bool:
    """Return whether the line that ends at the place is the one that was read there."""
    line = b"\n" + place.tail + b"\n" if place.size > len(place.tail) + 1 else place.tail + b"\n"
    file.seek(max(0, place.size - len(line)))
    return place.size == 0 or file.read(len(line)) == line


def _read_lines(file: BinaryIO, start: int) -> bytes:
    """Return about BATCH bytes of complete lines from a place on; a longer line is returned whole."""
    file.seek(start)
    content = file.read(BATCH)
    while b"\n" not in content and (more := file.read(BATCH)):
        content += more
        if len(content) > regular_files.MOST_LINE:
            raise regular_files.UnreadableError(f"a line has more than {regular_files.MOST_LINE:,} bytes")
    return content[: content.rfind(b"\n") + 1]


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise errors.DataError("a line is no JSON object", where, "restore the file or remove the line")
    return row
