"""The cache of decoded arrays, below `folders.cache_root()/decoded`. An entry that does not fit is made again.

An entry is a private folder with one `.npy` file for each array and `entry.json`, which is written last. That file
holds what the arrays were made of (the recipe), the size and time of each file, and small facts. Files are replaced,
never written in place, so that a memory map that another process holds stays whole. A table that is too large for the
memory is written row by row (`Rows`).
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from metarun import folders
from metarun.data.storage import storage_errors

try:
    import fcntl
except ImportError:  # Windows: two processes may then both decode, which is slower and as safe
    fcntl = None  # type: ignore[assignment]

FORMAT = 1  # of entry.json; an entry of another format is made again
LARGEST_RECORD = 1 << 22  # bytes of entry.json
ABANDONED = 3600.0  # seconds; the process of an older temporary file was killed

logger = logging.getLogger("metarun")


class Layout(NamedTuple):
    """The shape and dtype that an array must have."""

    shape: tuple[int, ...]
    dtype: Any


class Rows:
    """An array of an entry that is made row by row, on the disk alone. Threads may write at once.

    Only `make` of `load_or_make` may make one, for its own entry. Rows that nobody writes are zeros.

    Raises:
      StorageError: the disk is full, or may not be written.
    """

    def __init__(self, name: str, layout: Layout) -> None:
        self.folder, self._lock = _find_folder(name), threading.Lock()
        with self._errors():
            descriptor, self.temporary = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            self._file = os.fdopen(descriptor, "wb")
            header = {"descr": np.dtype(layout.dtype).str, "fortran_order": False, "shape": layout.shape}
            np.lib.format.write_array_header_2_0(self._file, header)
            self._start = self._file.tell()
            self._step = int(np.prod(layout.shape[1:], dtype=np.int64)) * np.dtype(layout.dtype).itemsize
            self._file.truncate(self._start + layout.shape[0] * self._step)

    def write(self, row: int, values: np.ndarray) -> None:
        """Write one row, values of the layout's dtype."""
        content = np.ascontiguousarray(values).tobytes()
        assert len(content) == self._step
        with self._errors(), self._lock:
            self._file.seek(self._start + row * self._step)
            self._file.write(content)

    def finish(self, path: Path) -> np.ndarray:
        """Put the array in the place of `path`, and return a memory map of it."""
        with self._errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            array = np.load(self.temporary, mmap_mode="r", allow_pickle=False)
            Path(self.temporary).replace(path)
        return array

    def discard(self) -> None:
        """Remove what is written so far."""
        with contextlib.suppress(OSError):
            self._file.close()
        Path(self.temporary).unlink(missing_ok=True)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return storage_errors("cannot keep decoded data", self.folder, "METARUN_CACHE")


class Entry(NamedTuple):
    """The content of one entry."""

    # np.ndarray: read-only memory maps if they come from the cache; `make` may give `Rows`.
    arrays: dict[str, Any]
    facts: dict[str, Any]  # small JSON values


class _Unfit(Exception):
    """The reason why an entry cannot be used. Never leaves this module."""


def load_or_make(
    name: str, recipe: Mapping[str, Any], layout: Mapping[str, Layout], make: Callable[[], Entry]
) -> Entry:
    """Return the entry of this name, or the result of `make` if no entry fits `recipe` and `layout`.

    Loading reads headers and file sizes only. If several processes need the entry, one makes it, and the others wait.

    Args:
      recipe: JSON that identifies what the arrays are made of: version of the decoder, size, stamps of the files.

    Raises:
      StorageError: the disk is full, or may not be written.
    """
    folder = _find_folder(name)
    with contextlib.suppress(_Unfit):
        return _read(folder, recipe, layout)
    with _hold_lock(folder):
        try:
            return _read(folder, recipe, layout)
        except _Unfit as unfit:
            damaged = (folder / "entry.json").exists()
            logger.log(logging.WARNING if damaged else logging.INFO, "decoding %s: %s", name, unfit)
        entry = _write(folder, recipe, make())
    with contextlib.suppress(_Unfit):  # on a disk without locks another process may be writing now
        return _read(folder, recipe, layout)
    return entry


def _find_folder(name: str) -> Path:
    return folders.cache_root() / "decoded" / name


def _read(folder: Path, recipe: Mapping[str, Any], layout: Mapping[str, Layout]) -> Entry:
    record = _read_record(folder / "entry.json")
    if record.get("format") != FORMAT or record.get("recipe") != recipe:
        raise _Unfit("the cache was made by another version or from other files")
    if set(record["arrays"]) != set(layout):
        raise _Unfit("the cache holds other arrays")
    stamps = record["arrays"]
    arrays = {name: _map(folder / f"{name}.npy", stamps[name], layout[name]) for name in layout}
    return Entry(arrays, record["facts"])


def _read_record(path: Path) -> dict[str, Any]:
    """Return the content of entry.json after comparing it with its own digest."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_RECORD)
        sealed = json.loads(text)
        record = sealed["record"]
        if sealed["digest"] != _digest(record):
            raise _Unfit("entry.json was altered")
    except FileNotFoundError:
        raise _Unfit("not in the cache yet") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _Unfit("entry.json cannot be read") from error
    return record


def _map(path: Path, stamp: dict[str, int], layout: Layout) -> np.ndarray:
    """Return a memory map of an array, if its file and its layout are those of the record."""
    try:
        if _stamp(path) != stamp:
            raise _Unfit(f"{path.name} was altered or truncated")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _Unfit(f"{path.name} cannot be read") from error
    if array.shape != layout.shape or array.dtype != layout.dtype:
        raise _Unfit(f"{path.name} has another shape or dtype")
    return array


def _write(folder: Path, recipe: Mapping[str, Any], entry: Entry) -> Entry:
    """Write an entry, and return it with arrays in place of `Rows`."""
    arrays = {}
    with storage_errors("cannot keep decoded data", folder, "METARUN_CACHE"):
        for name, array in entry.arrays.items():
            path = folder / f"{name}.npy"
            arrays[name] = array.finish(path) if isinstance(array, Rows) else _save(path, array)
        stamps = {name: _stamp(folder / f"{name}.npy") for name in arrays}
        record = {"format": FORMAT, "recipe": recipe, "arrays": stamps, "facts": entry.facts}
        with _open_replacement(folder / "entry.json") as file:
            file.write(json.dumps({"digest": _digest(record), "record": record}).encode())
    return Entry(arrays, entry.facts)


def _save(path: Path, array: np.ndarray) -> np.ndarray:
    with _open_replacement(path) as file:
        np.save(file, array, allow_pickle=False)
    return array


@contextlib.contextmanager
def _open_replacement(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file, readable by its owner only, that takes the place of `path` when it is on the disk."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _hold_lock(folder: Path) -> Iterator[None]:
    """Make the folder, and hold its lock if the file system has locks. Without locks two processes may decode."""
    with storage_errors("cannot keep decoded data", folder, "METARUN_CACHE"):
        folders.cache_root().mkdir(mode=0o700, parents=True, exist_ok=True)
        for private in (folder.parent, folder):
            private.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        _sweep(folder)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind."""
    for leftover in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > ABANDONED:
                leftover.unlink()


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _digest(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
