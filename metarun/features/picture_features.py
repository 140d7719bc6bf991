"""The features of a list of picture files, from the cache as far as they are there.

A row belongs to the bytes of a picture, the preparation and the network, whatever the file is called and wherever it
lies: a renamed or copied picture is not extracted again, and an edited one is.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from metarun import folders
from metarun.data import observers, parallel
from metarun.data.sources import Progress
from metarun.errors import DataError
from metarun.features.feature_table import Table

READ_AT_ONCE = 8  # pictures that a thread reads before it hands them on; bounds the memory
NOT_FINITE = "the network gives numbers for it that are not finite"


@runtime_checkable
class PicturePreparation(Protocol):
    """What makes a picture file an input: `data.preparation.Preparation`, or anything with these names."""

    def digest(self) -> str:
        """Return a hash of all that decides the values, hexadecimal."""

    def read(self, path: Path) -> np.ndarray:
        """Return a picture as float32 [height, width, channel]."""


@runtime_checkable
class Extractor(Protocol):
    """What gives features of pictures: `metarun.backbones.Backbone`, or anything with these names."""

    @property
    def digest(self) -> str:
        """Hexadecimal; another one whenever the features of the same prepared picture are others."""

    @property
    def preparation(self) -> PicturePreparation:
        """How a picture file becomes an input."""

    @property
    def features(self) -> int:
        """How many numbers a picture has."""

    def extract(self, pictures: np.ndarray) -> np.ndarray:
        """Return float32 [example, feature] of prepared pictures, float32 [example, height, width, channel]."""


class FeatureTable(NamedTuple):
    """The features of those of the files that can be read, in their order."""

    files: tuple[Path, ...]  # [example]
    # float32 [example, feature], read-only; a memory map if the rows lie together in the cache
    features: np.ndarray
    skipped: list[tuple[Path, str]]  # the files that cannot be read, each with its fault
    digests: tuple[str, ...] = ()  # [example], SHA-256 of each picture's bytes, hexadecimal


def extract(
    files: Sequence[Path],
    backbone: Extractor,
    *,
    cache: Path | None = None,
    batch: int = 64,
    observer: Progress | None = None,
) -> FeatureTable:
    """Return the features of picture files. What the cache has is not computed again.

    Rows go to the cache batch by batch, so what was killed half way goes on there. A picture that cannot be read, or
    whose features are not finite, is skipped and named.

    Args:
      cache: the folder of the tables; None: `folders.cache_root()/features`.
      batch: pictures that the network takes at once; the last batch is filled up with zeros to a power of two.
      observer: hears (done, total, description) of the pictures that are extracted; None: `observers.current_observer`.

    Raises:
      StorageError: the cache may not be written, or the disk is full.
    """
    observer = observer or observers.current_observer()
    skipped: dict[Path, str] = {}
    digests: dict[Path, bytes] = {}
    unique = list(dict.fromkeys(files))
    for path, digest, fault in _flatten(parallel.map_batches(hash_files, unique, READ_AT_ONCE)):
        if fault:
            skipped[path] = fault
        else:
            digests[path] = digest
    table = open_table(backbone, cache)
    faults = _fill(table, backbone, digests, batch, observer)
    skipped |= {path: faults[digest] for path, digest in digests.items() if digest in faults}
    kept = [path for path in files if path not in skipped]
    places = table.find(digests[path] for path in kept)
    rows = np.array([places[digests[path]] for path in kept], np.int64)
    features = take_rows(table.map(), rows)
    faulty = [(path, skipped[path]) for path in unique if path in skipped]
    return FeatureTable(tuple(kept), features, faulty, tuple(digests[path].hex() for path in kept))


def open_table(backbone: Extractor, cache: Path | None = None) -> Table:
    """Open the table of a network with its preparation, below `cache`."""
    key = hashlib.sha256(f"{backbone.digest} {backbone.preparation.digest()}".encode()).hexdigest()[:32]
    return Table((cache or folders.cache_root() / "features") / key, backbone.features)


def hash_files(files: Iterable[Path]) -> list[tuple[Path, bytes, str]]:
    """Return (path, SHA-256 of its bytes, "") for each file; or with no digest and what is wrong with it."""
    hashed = []
    for path in files:
        try:
            if not path.is_file():  # opening a pipe would never return
                raise OSError(0, "there is no such file")
            with path.open("rb") as file:
                hashed.append((path, hashlib.file_digest(file, "sha256").digest(), ""))
        except OSError as error:
            hashed.append((path, b"", f"it cannot be read: {error.strerror or error}"))
    return hashed


def take_rows(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return these rows, read-only: a part of the memory map itself if they lie together, else a copy."""
    if len(places) and np.array_equal(places, np.arange(places[0], places[0] + len(places))):
        return rows[places[0] : places[0] + len(places)]
    taken = np.asarray(rows[places])
    taken.flags.writeable = False
    return taken


def _fill(
    table: Table, backbone: Extractor, digests: dict[Path, bytes], batch: int, observer: Progress | None
) -> dict[bytes, str]:
    """Extract what the table lacks, and return {digest: fault} of what cannot be extracted."""
    there, missing, faults = table.find(digests.values()), dict[bytes, Path](), dict[bytes, str]()
    for path, digest in digests.items():
        if digest not in there:
            missing.setdefault(digest, path)

    def read(pairs: list[tuple[bytes, Path]]) -> list[tuple[bytes, np.ndarray | None, str]]:
        return [(digest, *_read(backbone.preparation, path)) for digest, path in pairs]

    good: list[tuple[bytes, np.ndarray]] = []
    pictures = _flatten(parallel.map_batches(read, missing.items(), READ_AT_ONCE))
    for done, (digest, picture, fault) in enumerate(pictures, start=1):
        if picture is None:
            faults[digest] = fault
        else:
            good.append((digest, picture))
        if good and (len(good) == batch or done == len(missing)):
            faults |= _append(table, backbone, good, batch)
            good = []
        if observer is not None:
            observer(done, len(missing), "extracting features")
    return faults


def _read(preparation: PicturePreparation, path: Path) -> tuple[np.ndarray | None, str]:
    try:
        return preparation.read(path), ""
    except DataError as error:
        return None, error.what


def _append(
    table: Table, backbone: Extractor, good: list[tuple[bytes, np.ndarray]], batch: int
) -> dict[bytes, str]:
    """Extract one batch and keep it; return {digest: fault} of those that are not finite."""
    size = min(batch, 1 << (len(good) - 1).bit_length())  # few sizes, because each is compiled
    pictures = np.zeros((size, *good[0][1].shape), np.float32)
    for place, (_, picture) in enumerate(good):
        pictures[place] = picture
    rows = np.asarray(backbone.extract(pictures))[: len(good)]
    finite = np.isfinite(rows).all(axis=1)
    table.append([digest for (digest, _), sound in zip(good, finite, strict=True) if sound], rows[finite])
    return {digest: NOT_FINITE for (digest, _), sound in zip(good, finite, strict=True) if not sound}


def _flatten(batches: Iterable[list]) -> Iterator:
    for items in batches:
        yield from items
