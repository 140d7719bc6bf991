"""Keeps decoded arrays below `locations.cache_root()/decoded`, and believes them only while they fit.

An entry is a private folder: one `.npy` file per array, and `entry.json`, written last, which says what
the arrays were made of (the recipe), how large each file is and when it was written, and small facts.
An entry that does not fit in any of this is made again. Files are replaced, never written in place, so
that a memory map that another process holds stays whole.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from metarun import locations
from metarun.data.storage import storage_errors

try:
    import fcntl
except ImportError:  # Windows: two processes may then both decode, which is slower but as safe
    fcntl = None  # type: ignore[assignment]

FORMAT = 1  # of entry.json; a cache that another version wrote is made again
_LARGEST_RECORD = 1 << 22  # bytes of entry.json
_ABANDONED = 3600.0  # seconds after which a temporary file belongs to a process that was killed

logger = logging.getLogger("metarun")


class Layout(NamedTuple):
    """The shape and dtype that an array must have."""

    shape: tuple[int, ...]
    dtype: Any


class Entry(NamedTuple):
    """What is kept."""

    arrays: dict[str, np.ndarray]  # read-only memory maps, when they come from the cache
    facts: dict[str, Any]  # small JSON values


class _Unfit(Exception):
    """Why an entry cannot be used. Never leaves this module."""


def load_or_make(
    name: str, recipe: Mapping[str, Any], layout: Mapping[str, Layout], make: Callable[[], Entry]
) -> Entry:
    """The entry of this name; `make` is called when there is none, or none that fits `recipe` and `layout`.

    `recipe` is JSON and identifies what the arrays are made of: version of the decoder, size, stamps of the
    source files. Loading reads headers and file sizes only. Of several processes, one makes and the others
    wait for it. Raises StorageError when the disk is full or may not be written.
    """
    folder = locations.cache_root() / "decoded" / name
    with contextlib.suppress(_Unfit):
        return _read(folder, recipe, layout)
    with _locked(folder):
        try:
            return _read(folder, recipe, layout)
        except _Unfit as unfit:
            damaged = (folder / "entry.json").exists()
            logger.log(logging.WARNING if damaged else logging.INFO, "decoding %s: %s", name, unfit)
        made = make()
        _write(folder, recipe, made)
    with contextlib.suppress(_Unfit):  # where there are no locks, another process may be writing just now
        return _read(folder, recipe, layout)
    return made


def _read(folder: Path, recipe: Mapping[str, Any], layout: Mapping[str, Layout]) -> Entry:
    record = _read_record(folder / "entry.json")
    if record.get("format") != FORMAT or record.get("recipe") != recipe:
        raise _Unfit("the cache was made by another version or from other files")
    if set(record["arrays"]) != set(layout):
        raise _Unfit("the cache holds other arrays")
    arrays = {
        name: _map(folder / f"{name}.npy", record["arrays"][name], wanted) for name, wanted in layout.items()
    }
    return Entry(arrays, record["facts"])


def _read_record(path: Path) -> dict[str, Any]:
    """What entry.json says, once its own digest has vouched for it."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_RECORD)
        sealed = json.loads(text)
        record = sealed["record"]
        if sealed["digest"] != _digest(record):
            raise _Unfit("entry.json was altered")
    except FileNotFoundError:
        raise _Unfit("not in the cache yet") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _Unfit("entry.json cannot be read") from error
    return record


def _map(path: Path, written: dict[str, int], wanted: Layout) -> np.ndarray:
    try:
        if _stamp(path) != written:
            raise _Unfit(f"{path.name} was altered or truncated")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _Unfit(f"{path.name} cannot be read") from error
    if array.shape != wanted.shape or array.dtype != wanted.dtype:
        raise _Unfit(f"{path.name} has another shape or dtype")
    return array


def _write(folder: Path, recipe: Mapping[str, Any], entry: Entry) -> None:
    with storage_errors("cannot keep decoded data", folder, "METARUN_CACHE"):
        for name, array in entry.arrays.items():
            with _replacing(folder / f"{name}.npy") as file:
                np.save(file, array, allow_pickle=False)
        stamps = {name: _stamp(folder / f"{name}.npy") for name in entry.arrays}
        record = {"format": FORMAT, "recipe": recipe, "arrays": stamps, "facts": entry.facts}
        with _replacing(folder / "entry.json") as file:
            file.write(json.dumps({"digest": _digest(record), "record": record}).encode())


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file beside `path`, readable by its owner only, that takes its place once it is on disk."""
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
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder, and holds its lock where the file system has locks; without, two may decode."""
    with storage_errors("cannot keep decoded data", folder, "METARUN_CACHE"):
        locations.cache_root().mkdir(mode=0o700, parents=True, exist_ok=True)
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
    """Removes what killed processes left behind."""
    for leftover in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _ABANDONED:
                leftover.unlink()


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _digest(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
