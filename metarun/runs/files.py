"""Files that nobody ever sees half written: not a reader, not after a crash, not on a full disk."""

import contextlib
import csv
import errno
import io
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from metarun import errors
from metarun.runs import strict_json

TEMPORARY = ".temporary-"  # how the names begin of all that may be thrown away after a crash

_FREE_SPACE = "free some space, or choose another place; what was saved before is intact"
_PERMISSIONS = "check the owner and the permissions, or choose another place"
_KIND = "choose another place, or move away what is there"
_HARDWARE = "check the disk and its mount; what was saved before is intact"
_CAUSES = {
    errno.ENOSPC: ("the disk is full", _FREE_SPACE),
    errno.EDQUOT: ("the disk quota is used up", _FREE_SPACE),
    errno.EFBIG: ("a file exceeds the size limit of the disk or of `ulimit -f`", _FREE_SPACE),
    errno.EACCES: ("permission denied", _PERMISSIONS),
    errno.EPERM: ("operation not permitted", _PERMISSIONS),
    errno.EROFS: ("the disk is mounted read-only", _PERMISSIONS),
    errno.ENOENT: ("there is no such folder", "make it; and do not move or remove a run while it is written"),
    errno.EEXIST: ("a file is there, and a folder is needed", _KIND),
    errno.ENOTDIR: ("a file is on the way, and a folder is needed", _KIND),
    errno.EISDIR: ("a folder is there, and a file is needed", _KIND),
    errno.ENAMETOOLONG: ("the path is too long", "choose a shorter place"),
    errno.ENOLCK: ("the file system does not support locks", "choose a local disk"),
    errno.EMFILE: ("too many open files", "raise `ulimit -n`"),
    errno.EIO: ("input/output error", _HARDWARE),
    errno.ESTALE: ("the network file system lost the file", _HARDWARE),
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a StorageError about `path`. Other errors are bugs, and pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CAUSES:
            raise
        what, remedy = _CAUSES[error.errno]
        raise errors.StorageError(what, str(error.filename or path), remedy) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file as one step: a reader finds the old content or the new, also after a power cut.

    What is no file, such as a pipe or /dev/stdout, is written to and stays what it is.

    Raises StorageError, and leaves the old content, when the disk refuses.
    """
    with storage_errors(path):
        path.parent.stat()  # a folder that is missing is named here; else the temporary file would be
        if path.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                stream.write(content)
            return
        temporary = temporary_beside(path)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                write_all(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
            sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, content: str) -> None:
    """Replace a text file as one step, in UTF-8."""
    write_bytes(path, content.encode())


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows of cells as CSV in UTF-8, complete or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file as one step."""
    write_text(path, strict_json.encode_indented(content))


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte, in one call unless the system takes fewer."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync(path: Path) -> None:
    """Return when a file, or the list of names in a folder, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_beside(path: Path) -> Path:
    """Return a name in the same folder that cleaning recognises. A rename from there to `path` is one step."""
    return path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")


def child(folder: Path, name: str) -> Path:
    """Return `folder/name`. The name may come from a config or a command line, and cannot lead out of the folder.

    Raises:
      ConfigError: it has other signs than letters, digits, `.`, `_` and `-`, or begins with `.` or `-`.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        remedy = "use letters, digits, `.`, `_` and `-`, beginning with a letter or a digit"
        raise errors.ConfigError(f"{name!r} cannot name a file", str(folder), remedy)
    return folder / name
