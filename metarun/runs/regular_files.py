"""Reading what may come from a stranger: regular files alone, of a bounded size, and never a wait.

A pipe would be waited for, a device may have effects when it is opened, and a file of 40 GB fills the memory. Links are
followed: a file that is linked is read like any other, and a loop of links is refused.
"""

import errno
import io
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from metarun.runs import strict_json

# Bytes of a JSON file of a run: the result of 1,000 replicas of 8 members has about 10 million.
MOST_JSON = 1 << 26
MOST_TEXT = 1 << 20  # bytes of a text file, such as config.yaml
MOST_LINE = 1 << 24  # bytes of a line of metrics.jsonl, which has some hundred
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnreadableError(ValueError):
    """A file is of another kind, or larger, or of other content than a file of a run; the text says which."""


@contextmanager
def open_file(path: Path, most: int | None = None) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading, and look at its kind before it is opened and again afterwards.

    Args:
      most: bytes; None: any number.

    Raises:
      UnreadableError: it is no regular file, a link leads back to itself, or the file is larger.
      OSError: it is not there, or may not be read.
    """
    try:
        _refuse_other(path.stat(), most)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UnreadableError("its links lead back to themselves") from error
    with os.fdopen(descriptor, "rb") as file:
        _refuse_other(os.fstat(descriptor), most)
        yield file


def read_bytes(path: Path, most: int = MOST_JSON) -> bytes:
    """Return the content of a file; see `open_file` for what is raised."""
    with open_file(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:  # it has grown since it was opened
        raise UnreadableError(f"it has more than {most:,} bytes")
    return content


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """Return the text of a file; see `open_file` for what is raised.

    Raises:
      UnreadableError: also if it is not UTF-8.
    """
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError("it is not UTF-8 text") from error


def read_object(path: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """Return the JSON object in a file; see `open_file` for what is raised.

    Raises:
      UnreadableError: also if it holds no JSON object.
    """
    return parse_object(read_text(path, most))


def read_sealed(path: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """Return the JSON object in a file that `files.write_sealed` wrote, without its seal; see `open_file`.

    A file of an older version of metarun has no seal.

    Raises:
      UnreadableError: also if it was changed after it was written.
    """
    return strict_json.open_seal(read_object(path, most))


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object that a text is.

    Raises:
      UnreadableError: it is none, or is nested too deeply.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise UnreadableError("it is nested too deeply") from error
    except ValueError as error:
        raise UnreadableError(f"it is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnreadableError("it is no JSON object")
    return content


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of an open file, each with its end; the last one may have none.

    Raises:
      UnreadableError: a line is longer than MOST_LINE. A file of 40 GB without a line end is never read whole.
    """
    while line := file.readline(MOST_LINE + 1):
        if len(line) > MOST_LINE:
            raise UnreadableError(f"a line has more than {MOST_LINE:,} bytes")
        yield line


def _refuse_other(facts: os.stat_result, most: int | None) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise UnreadableError(
            f"it is {KINDS.get(stat.S_IFMT(facts.st_mode), 'no file')}, and no regular file"
        )
    if most is not None and facts.st_size > most:
        raise UnreadableError(f"it has {facts.st_size:,} bytes, and {most:,} are the most")
