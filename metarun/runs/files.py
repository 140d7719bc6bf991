"""Files that nobody ever sees half written: not a reader, not after a crash, not on a full disk.

Files of ours, such as those of a run, are regular files, and metarun follows no link in their place: a run directory
may come from a stranger, and a link in it may lead to any file of whoever goes on with the run. The folder of the run
itself may be a link. Whoever can change a run while it is written can do more than a link could, and is trusted.
"""

import contextlib
import csv
import errno
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from metarun import errors
from metarun.runs import open_outputs, strict_json

TEMPORARY = ".temporary-"  # how the names begin of all that may be thrown away after a crash

_FREE_SPACE = "free some space, or choose another place; what was saved before is intact"
_PERMISSIONS = "check the owner and the permissions, or choose another place"
_KIND = "choose another place, or move away what is there"
_HARDWARE = "check the disk and its mount; what was saved before is intact"
_COPY = "put a copy of the file in its place (cp FILE copy && mv copy FILE), or choose another place"
_ITSELF = "put the file or the folder itself in its place, or choose another place"
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
    errno.ELOOP: ("a link is there, and none is followed where metarun writes", _ITSELF),
    errno.ENXIO: ("a pipe or a device is there, and a regular file is needed", _ITSELF),
    errno.EMLINK: ("the file has several names (hard links), and would change under all of them", _COPY),
    errno.EMFILE: ("too many open files", "raise `ulimit -n`"),
    errno.ENFILE: ("too many open files on this machine", "end other programs, or raise `fs.file-max`"),
    errno.EIO: ("input/output error", _HARDWARE),
    errno.ESTALE: ("the network file system lost the file", _HARDWARE),
    errno.ENOTCONN: ("the file system has lost its server", _HARDWARE),
    errno.ETIMEDOUT: ("the file system does not answer", _HARDWARE),
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a StorageError about `path`. Other errors are bugs, and pass."""
    try:
        yield
    except OSError as error:
        if (explained := explain(error, path)) is None:
            raise
        raise explained from error


def explain(error: OSError, path: Path) -> errors.StorageError | None:
    """Return what to say of an error of the disk, about `path` if the error names no file; None: it is none."""
    if error.errno not in _CAUSES:
        return None
    what, remedy = _CAUSES[error.errno]
    return errors.StorageError(what, str(error.filename or path), remedy)


def write_output(path: Path, content: bytes) -> None:
    """Write a file that a user has named. A pipe, a device or /dev/stdout gets the content, and stays what it is."""
    with storage_errors(path):
        if (descriptor := open_outputs.find_descriptor(path)) is not None:
            open_outputs.prepare(descriptor, path)
            write_all(descriptor, content)
            return
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as stream:
                stream.write(content)
            return
    write_bytes(path, content)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file as one step: a reader finds the old content or the new, also after a power cut.

    A link in its place is replaced, and not followed. Other names of the file (hard links) keep the old content.

    Raises StorageError, and leaves the old content, when the disk refuses, or when no regular file is there.
    """
    with storage_errors(path):
        path.parent.stat()  # a folder that is missing is named here; else the temporary file would be
        if path.is_dir():
            raise _make_error(errno.EISDIR, path)
        if os.path.lexists(path) and not (path.is_symlink() or path.is_file()):
            raise _make_error(errno.ENXIO, path)
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


def open_own(path: Path, flags: int, alone: bool = True) -> int:
    """Return a descriptor of a regular file of ours with a single name; it is made if nothing is there.

    What is written by a descriptor changes the file under every name that it has. So neither a link is followed, nor
    a file with a second name taken, such as the files of a copy by `cp -al`.

    Args:
      flags: of `os.open`, which say how it is read and written.
      alone: whether a file with several names is refused; else nothing may be written to it.

    Raises:
      StorageError: a link, a pipe, a device, a folder or a file with several names is there, or the disk refuses.
    """
    with storage_errors(path):
        # Without O_NONBLOCK a pipe would be waited for. It changes nothing for a regular file.
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _make_error(errno.ENXIO, path)
            if alone and status.st_nlink > 1:
                raise _make_error(errno.EMLINK, path)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def open_to_append(path: Path) -> BinaryIO:
    """Open a file of ours behind its end, without a buffer; see `open_own`."""
    return os.fdopen(open_own(path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0)


def make_folder(folder: Path, root: Path) -> None:
    """Make a folder of ours and those between it and `root`, which is there, unless they are there.

    Raises:
      StorageError: one of them is a link or a file, or the disk refuses.
    """
    place = root
    for name in folder.relative_to(root).parts:
        place = place / name
        with storage_errors(place):
            if place.is_symlink():
                raise _make_error(errno.ELOOP, place)
            place.mkdir(exist_ok=True)


def refuse_links(root: Path, names: Iterable[str], folders: Iterable[str]) -> None:
    """Refuse a folder of ours in which something else than regular files and folders is where metarun writes.

    `open_own` and `make_folder` would refuse it, too, but only after hours of training.

    Args:
      root: the folder, which may be a link itself.
      names: of the files in it, as far as they are there, and folders: of the folders, such as `checkpoints/maml`.

    Raises:
      RunDirectoryError: a link, a pipe, a device, or a file for a folder is there. Nothing has been written.
    """
    for wanted, has_kind, kind in ((names, stat.S_ISREG, "file"), (folders, stat.S_ISDIR, "folder")):
        for place in [root / name for name in wanted]:
            with storage_errors(place):
                mode = place.lstat().st_mode if os.path.lexists(place) else None
            if mode is None or has_kind(mode):
                continue
            what = "this is a link, and none is followed where metarun writes"
            if not stat.S_ISLNK(mode):
                what = f"a regular {kind} is needed, and something else is here"
            raise errors.RunDirectoryError(
                what, str(place), f"put the {kind} itself here, or begin anew elsewhere"
            )


def refuse_nameless(folder: Path) -> None:
    """Refuse a folder that Python spells in other bytes than the C++ below Orbax, which spells all names in UTF-8.

    It is so if the locale is not UTF-8, or the name is no UTF-8. The first checkpoint would fail, too, but later.

    Raises:
      StorageError: nothing could be saved there. Nothing has been written.
    """
    text = str(folder.absolute())
    with contextlib.suppress(UnicodeEncodeError):
        if os.fsencode(text) == text.encode("utf-8"):
            return
    what = "in this locale the name is not UTF-8, and no checkpoint can be saved there"
    raise errors.StorageError(what, str(folder), "set PYTHONUTF8=1, or choose another --run-dir")


def list_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, and of the links; none if it is not there. Raises StorageError."""
    with storage_errors(folder):
        entries = list(folder.iterdir()) if folder.is_dir() else []
        return [entry.name for entry in entries if entry.is_symlink() or entry.is_dir()]


def remove(path: Path) -> None:
    """Remove a file, a link (and not what it leads to), or a folder with all that it holds; or nothing.

    Raises StorageError when the disk refuses.
    """
    with storage_errors(path), contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def discard(path: Path) -> None:
    """Remove what has a temporary name, as far as the disk lets: the next process tries again."""
    with contextlib.suppress(errors.StorageError, OSError):
        remove(path)


def write_text(path: Path, content: str) -> None:
    """Replace a text file as one step, in UTF-8."""
    write_bytes(path, content.encode())


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows of cells as CSV in UTF-8 to a file that a user has named, complete or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_output(path, text.getvalue().encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file as one step."""
    write_text(path, strict_json.encode_indented(content))


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file as one step, with the digest of what it says; `regular_files.read_sealed` reads it."""
    write_json(path, strict_json.seal(content))


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte, in one call unless the system takes fewer."""
    rest = memoryview(content)
    while rest:
        if not (written := os.write(descriptor, rest)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[written:]


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


def _make_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def child(folder: Path, name: str) -> Path:
    """Return `folder/name`. The name may come from a config or a command line, and cannot lead out of the folder.

    Raises:
      ConfigError: it has other signs than letters, digits, `.`, `_` and `-`, or begins with `.` or `-`.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        remedy = "use letters, digits, `.`, `_` and `-`, beginning with a letter or a digit"
        raise errors.ConfigError(f"{name!r} cannot name a file", str(folder), remedy)
    return folder / name
