"""What identifies the files of a data set, so that another one under the same name is noticed."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarun.errors import DataError

BLOCK = 1 << 20  # bytes read at once
MOST_COMPARED = 1 << 28  # bytes that are read where a difference is only said; that takes half a second


def take_fingerprint(root: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Return the number of files below `root`, their bytes, and the SHA-256 of their names and contents.

    It reads every byte, which takes about a second for 500 MB.

    Raises:
      DataError: a file cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    for file in sorted(files):
        content = hashlib.sha256()
        try:
            with file.open("rb") as stream:
                while block := stream.read(BLOCK):
                    content.update(block)
                    size += len(block)
        except OSError as error:
            what = f"the file cannot be read: {error.strerror or error}"
            raise DataError(what, str(file), "allow to read it") from error
        digest.update(f"{file.relative_to(root).as_posix()}\0{content.hexdigest()}\n".encode())
    return {"files": len(files), "bytes": size, "sha256": digest.hexdigest()}


def differ(root: Path, files: Sequence[Path], known: Mapping[str, Any]) -> bool:
    """Return whether files are not those of a fingerprint.

    They are read only if their sizes are the same, and taken for the same if they may not be read.
    """
    try:
        size = sum(file.stat().st_size for file in files)
    except OSError:
        return True
    if len(files) != known.get("files") or size != known.get("bytes"):
        return True
    try:
        return size <= MOST_COMPARED and take_fingerprint(root, files) != known
    except DataError:
        return False


def refuse_other(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None, where: str) -> None:
    """Refuse data that are not those of a run: its episodes would be others under the same name.

    Args:
      before: the fingerprint that the run has kept; None: it has none, and nothing is refused.
      where: the place of the data.

    Raises:
      DataError: the fingerprints differ.
    """
    if before is not None and before != now:
        raise DataError(
            "the data are not those that the run was trained on: their fingerprint differs",
            where,
            "restore them, or say where a copy is: task.folder=DIR; `metarun predict` goes by what the run has kept",
        )
