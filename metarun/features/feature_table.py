"""One append-only table of features on the disk, by the digest of a picture's bytes.

    features.bin   float32 [row, feature], little-endian, and nothing else, so that it is mapped into memory as it is
    index.bin      for each row the SHA-256 of the picture's bytes, and a CRC-32 of that digest and the row

A row is on the disk before its entry in the index is. So what a killed process leaves is a row without an entry, which
the next one writes over. A row whose CRC-32 is wrong counts as missing; it is computed again and appended, and the last
good row of a picture counts. Several processes may append at once: each holds a lock for one batch.
"""

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from metarun.data.storage import storage_errors

try:
    import fcntl
except ImportError:  # Windows: two processes must not extract with the same network at once
    fcntl = None  # type: ignore[assignment]

ENTRY = np.dtype([("digest", "V32"), ("check", "<u4")])  # of index.bin
PLACES = 1 << 16  # rows that are checked at a time


class Table:
    """The rows that one network has given. Opening it makes its folder.

    Raises:
      StorageError: the folder may not be made, read or written, or the disk is full.
    """

    def __init__(self, folder: Path, features: int) -> None:
        self.folder, self.features = folder, features
        self._rows, self._index = folder / "features.bin", folder / "index.bin"
        self._places: dict[bytes, int] = {}
        self._known = 0  # rows of the index that `_places` has
        with self._errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, digests: Iterable[bytes]) -> dict[bytes, int]:
        """Return {digest: its row} of those that are there and undamaged."""
        self._refresh()
        wanted = {digest: self._places[digest] for digest in digests if digest in self._places}
        pairs, found = list(wanted.items()), {}
        rows = self.map()
        index = self._map_index()
        for start in range(0, len(pairs), PLACES):
            for digest, row in pairs[start : start + PLACES]:
                if compute_check(digest, rows[row]) == index["check"][row]:
                    found[digest] = row
        return found

    def append(self, digests: list[bytes], rows: np.ndarray) -> None:
        """Append rows, float32 [row, feature], of pictures with these digests."""
        content = np.ascontiguousarray(rows, "<f4")
        entries = np.array(
            [(digest, compute_check(digest, row)) for digest, row in zip(digests, content, strict=True)],
            ENTRY,
        )
        with self._errors(), self._lock():
            count = self._count()
            write_at(self._rows, count * self.features * 4, content.tobytes())
            write_at(self._index, count * ENTRY.itemsize, entries.tobytes())

    def map(self) -> np.ndarray:
        """Return all rows, float32 [row, feature], as a read-only memory map."""
        with self._errors():
            count = self._count()
            if not count:
                return np.empty((0, self.features), np.float32)
            return np.memmap(self._rows, "<f4", "r", shape=(count, self.features))

    def _refresh(self) -> None:
        """Read the entries that other processes have appended."""
        index = self._map_index()
        if len(index) < self._known:  # somebody removed the table
            self._places, self._known = {}, 0
        for row in range(self._known, len(index)):
            self._places[index["digest"][row].tobytes()] = row
        self._known = len(index)

    def _map_index(self) -> np.ndarray:
        with self._errors():
            count = self._count()
            return np.memmap(self._index, ENTRY, "r", shape=(count,)) if count else np.empty(0, ENTRY)

    def _count(self) -> int:
        """Return how many rows are whole in both files."""
        sizes = [path.stat().st_size if path.exists() else 0 for path in (self._rows, self._index)]
        return min(sizes[0] // (self.features * 4), sizes[1] // ENTRY.itemsize)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # some network file systems have no locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return storage_errors("cannot keep features", self.folder, "METARUN_CACHE")


def compute_check(digest: bytes, row: np.ndarray) -> int:
    """Return the CRC-32 of a digest and of the row that belongs to it."""
    return zlib.crc32(np.ascontiguousarray(row, "<f4").tobytes(), zlib.crc32(digest))


def write_at(path: Path, offset: int, content: bytes) -> None:
    """Write behind the whole rows of a file, over what a killed process left, and wait until it is on the disk."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        file.seek(offset)
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
