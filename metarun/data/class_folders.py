"""A folder of pictures that nobody vouches for, with a folder for each class, as one table of pixels.

See `folder_listing` for the layout. The pictures are decoded in parallel, once for each size, straight into a file of
the cache, and stay there until a name, a size or a time of modification in the folder changes. No picture but the few
that are being decoded is held in memory.
"""

import contextlib
import hashlib
import itertools
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarun.data import cache, folder_listing, observers, picture_files
from metarun.data.preparation import Preparation
from metarun.data.sources import Progress
from metarun.errors import DataError
from metarun.plain_text import escape

DECODER = 2  # raised whenever the decoded arrays change, so that older caches are made again
MOST_DECODED = 1 << 36  # bytes of the table on the disk: 64 GiB
MOST_UNREADABLE = 1000  # pictures; their names are kept
REPORT_SECONDS = 0.1  # between two reports of progress


class Folder(NamedTuple):
    """All pictures, as a table in which a class is a run of rows."""

    # uint8 [picture, height, width, channel], 0 = black, or other rows of pictures; a memory map
    table: np.ndarray
    rows: np.ndarray  # int32 [example], the rows of the table that could be read, in their order
    starts: np.ndarray  # int32 [class], where each class begins among the examples
    counts: np.ndarray  # int32 [class], how many examples it has
    class_names: tuple[str, ...]
    splits: tuple[str, ...]  # the split of each class; empty if the folder has no splits of its own
    unreadable: tuple[str, ...]  # the name and the fault of each picture that could not be read
    fingerprint: str  # hexadecimal, of all names and the bytes of all pictures, wherever the folder lies

    @property
    def images(self) -> np.ndarray:
        """The examples, uint8 [example, height, width, channel]; copied if some pictures could not be read."""
        return self.table if len(self.rows) == len(self.table) else self.table[self.rows]


def load(root: Path, preparation: Preparation, progress: Progress | None = None) -> Folder:
    """Return all pictures below the root, from the cache if the folder has not changed.

    A picture is the square of side `preparation.shorter`, before mean and deviation. It goes straight to the disk, and
    the table is a memory map: it need not fit into the memory. A picture that cannot be read takes no example; the
    caller decides whether that matters.

    Raises:
      DataError: the table would be too large, or more than MOST_UNREADABLE pictures cannot be read; and as
        `folder_listing.list_pictures` raises.
      StorageError: the folder may not be read, or the cache may not be written.
    """
    listing = folder_listing.list_pictures(root)
    counts = [len(paths) for paths in listing.paths]
    side, channels = preparation.shorter, preparation.channels
    shape = (sum(counts), side, side, channels)
    if (needed := int(np.prod(shape, dtype=np.int64))) > MOST_DECODED:
        raise DataError(
            f"{sum(counts):,} pictures at {side}×{side}×{channels} take {needed:,} bytes, "
            f"more than the {MOST_DECODED:,} allowed",
            str(root),
            "choose a smaller task.size, task.channels=1, or fewer pictures",
        )
    identity = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    fit = "stretch" if preparation.crop == "stretch" else "square"
    name = f"image_folder-{identity}-{side}-{channels}-{fit}-{preparation.interpolation}"
    recipe = {"decoder": DECODER, "size": side, "channels": channels, "fit": fit, "folder": listing.digest}
    # What is unreadable is kept, too; the extra makes more readable.
    recipe["heic"] = picture_files.import_heif() is not None
    entry = cache.load_or_make(
        name,
        recipe=recipe | {"interpolation": preparation.interpolation},
        layout={"images": cache.Layout(shape, np.uint8)},
        make=lambda: _decode(name, root, listing, preparation, progress or observers.current_observer()),
    )
    return _leave_out_unreadable(entry, listing, counts)


def arrange(
    root: Path,
    listing: folder_listing.Listing,
    table: np.ndarray,
    digests: Sequence[str],
    skipped: Mapping[Path, str],
) -> Folder:
    """Return a folder with a table that has rows only for the pictures that could be read.

    Args:
      table: [example, ...], in the order of the listing.
      digests: [example], of the bytes of each picture, hexadecimal.
      skipped: {path: fault} of the others.
    """
    resolved, fingerprint, remaining = root.resolve(), hashlib.sha256(), iter(digests)
    for path in itertools.chain.from_iterable(listing.paths):
        digest = "" if path in skipped else next(remaining)
        fingerprint.update(_identify(path.relative_to(resolved), digest))
    counts = [sum(path not in skipped for path in paths) for paths in listing.paths]
    faults = [escape(f"{path.relative_to(resolved)}: {fault}") for path, fault in skipped.items()]
    rows = np.arange(len(table), dtype=np.int32)
    return _make_folder(table, rows, counts, listing, faults, fingerprint.hexdigest())


def _leave_out_unreadable(entry: cache.Entry, listing: folder_listing.Listing, counts: list[int]) -> Folder:
    unreadable = entry.facts["unreadable"]
    missing = np.array(sorted(map(int, unreadable)), dtype=np.int64)
    rows = np.delete(np.arange(sum(counts), dtype=np.int32), missing)
    owner = np.repeat(np.arange(len(counts)), counts)
    readable = np.bincount(owner[rows], minlength=len(counts)).tolist()
    faults, fingerprint = list(unreadable.values()), entry.facts["fingerprint"]
    return _make_folder(entry.arrays["images"], rows, readable, listing, faults, fingerprint)


def _make_folder(
    table: np.ndarray,
    rows: np.ndarray,
    counts: list[int],
    listing: folder_listing.Listing,
    unreadable: list[str],
    fingerprint: str,
) -> Folder:
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32)
    sizes, names, splits = np.array(counts, np.int32), listing.class_names, listing.splits
    return Folder(table, rows, starts, sizes, names, splits, tuple(unreadable), fingerprint)


def _identify(path: Path, digest: str) -> bytes:
    """Return what the fingerprint of a folder has of one picture: its name in the folder, and its bytes' digest."""
    return f"{path.as_posix()}\0{digest}\n".encode(errors="surrogateescape")


def _decode(
    name: str,
    root: Path,
    listing: folder_listing.Listing,
    preparation: Preparation,
    progress: Progress | None,
) -> cache.Entry:
    """Decode all pictures into the entry `name` of the cache, and hash the bytes of their files."""
    paths = [path for class_paths in listing.paths for path in class_paths]
    side = preparation.shorter
    images = cache.Rows(name, cache.Layout((len(paths), side, side, preparation.channels), np.uint8))
    count = _Counter(progress, len(paths), f"decoding {root.name}")
    resolved, unreadable, fingerprint = root.resolve(), dict[str, str](), hashlib.sha256()

    def decode(row: int) -> tuple[str, str | None]:
        try:
            images.write(row, preparation.decode(paths[row], whole=True))
        except DataError as error:
            return digest_file(paths[row]), error.what
        finally:
            count()
        return digest_file(paths[row]), None

    try:
        with warnings.catch_warnings(), _make_pool() as pool:
            warnings.simplefilter("ignore")  # Pillow warns about files that it reads nevertheless
            for row, (digest, fault) in enumerate(pool.map(decode, range(len(paths)))):
                relative = paths[row].relative_to(resolved)
                fingerprint.update(_identify(relative, digest))
                if fault is not None:
                    unreadable[str(row)] = escape(f"{relative.parent}: {fault}")
                    _refuse_too_many(root, unreadable)
    except BaseException:
        images.discard()
        raise
    return cache.Entry({"images": images}, {"unreadable": unreadable, "fingerprint": fingerprint.hexdigest()})


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal; "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _refuse_too_many(root: Path, unreadable: dict[str, str]) -> None:
    if len(unreadable) > MOST_UNREADABLE:
        example = next(iter(unreadable.values()))
        what = f"more than {MOST_UNREADABLE:,} pictures cannot be read, among them {example}"
        raise DataError(what, str(root), "take them out")


@contextlib.contextmanager
def _make_pool() -> Iterator[ThreadPoolExecutor]:
    """Make a pool of threads, because Pillow decodes outside Python's lock. An error drops the waiting pictures."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _Counter:
    """A count of decoded pictures. Any thread calls it once for each picture."""

    def __init__(self, progress: Progress | None, total: int, description: str) -> None:
        self.progress, self.total, self.description = progress, total, description
        self.done, self.last_report, self.lock = 0, 0.0, threading.Lock()

    def __call__(self) -> None:
        with self.lock:
            self.done += 1
            due = self.done == self.total or time.monotonic() - self.last_report > REPORT_SECONDS
            if self.progress is not None and due:
                self.last_report = time.monotonic()
                self.progress(self.done, self.total, self.description)
