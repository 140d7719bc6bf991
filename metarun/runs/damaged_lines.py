"""Damaged lines of metrics.jsonl, found when a run is taken up: they are said, set aside and blanked.

A damaged line is kept in `metrics.damaged`, with its number before it, and spaces take its place. So all other lines
stay where they are, and the sizes that checkpoints and sinks have noted still hold. Readers pass over blank lines.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from metarun.runs import files, regular_files

NAME = "metrics.damaged"
SHOWN = 5  # numbers of damaged lines in a warning
PIECE = 1 << 20  # bytes that are hashed at once

logger = logging.getLogger("metarun")


class Line(NamedTuple):
    """A line of a file."""

    number: int  # from 1
    start: int  # bytes before it
    content: bytes  # without its end


def mend(path: Path, expected: str = "") -> "hashlib._Hash":
    """Look for damage in the lines of a run, set it aside, and return the SHA-256 of the lines, to go on with.

    Args:
      path: of metrics.jsonl, which ends with a whole line.
      expected: the SHA-256 of the lines, in hex, as the newest checkpoint has it; "": it has none.

    Raises:
      StorageError: the disk refuses.
    """
    digest = hash_file(path)
    if expected == digest.hexdigest():
        return digest
    with files.storage_errors(path), regular_files.open_file(path) as file:
        lines = list(find_suspicious(regular_files.read_lines(file)))
    damaged = [line for line in lines if line.content.strip()]
    if damaged:
        set_aside(path, damaged)
        digest = hash_file(path)
        numbers = ", ".join(str(line.number) for line in damaged[:SHOWN])
        more = ", …" if len(damaged) > SHOWN else ""
        what = "damaged lines of %s are set aside in %s, and all others are kept: line %s%s"
        logger.warning(what, path, NAME, numbers, more)
    elif expected and not lines:
        logger.warning(
            "%s is not what was written: some number in it was changed, and nobody knows which", path
        )
    return digest


def find_suspicious(lines: Iterable[bytes]) -> Iterator[Line]:
    """Yield the lines that are no lines of metrics: damaged ones, and blank ones, which were damaged before."""
    start = 0
    for number, line in enumerate(lines, start=1):
        if not is_sound(line):
            yield Line(number, start, line.removesuffix(b"\n"))
        start += len(line)


def is_sound(line: bytes) -> bool:
    """Return whether a line is a JSON object that says its stage, its split and its step."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return False
    return isinstance(row.get("stage"), str) and isinstance(row.get("split"), str)


def set_aside(path: Path, damaged: Iterable[Line]) -> None:
    """Copy lines to `metrics.damaged`, and put spaces in their place. Raises StorageError.

    After a power cut between the two a line is in both, and is set aside once more.
    """
    aside = path.with_name(NAME)
    descriptor = files.open_own(aside, os.O_WRONLY | os.O_APPEND)
    with files.storage_errors(aside):
        try:
            for line in damaged:
                files.write_all(descriptor, b"%d\t%b\n" % (line.number, line.content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    descriptor = files.open_own(path, os.O_WRONLY)
    with files.storage_errors(path):
        try:
            for line in damaged:
                os.lseek(descriptor, line.start, os.SEEK_SET)
                files.write_all(descriptor, b" " * len(line.content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def hash_file(path: Path, size: int | None = None) -> "hashlib._Hash":
    """Return the SHA-256 of a file, which more may be added to.

    Args:
      size: how many bytes of it, from its start; None: all.
    """
    digest, left = hashlib.sha256(), size
    with files.storage_errors(path), regular_files.open_file(path) as file:
        while piece := file.read(PIECE if left is None else min(PIECE, left)):
            digest.update(piece)
            left = None if left is None else left - len(piece)
    return digest
