"""A folder of pictures that nobody vouches for, with a folder for each class, as one table of pixels.

See `folder_listing` for the layout. The pictures are decoded in parallel, once for each size, and kept in the cache
until a name, a size or a time of modification in the folder changes.
"""

import contextlib
import hashlib
import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarun.data import cache, folder_listing, observers, picture_files
from metarun.data.sources import Progress
from metarun.errors import DataError

DECODER = 1  # raised whenever the decoded arrays change, so that older caches are made again
MOST_DECODED = 1 << 34  # bytes of the table, which is held in memory and then on the device
MOST_UNREADABLE = 1000  # pictures; their names are kept
REPORT_SECONDS = 0.1  # between two reports of progress


class Folder(NamedTuple):
    """All pictures, as a table in which a class is a run of rows."""

    images: np.ndarray  # uint8 [example, height, width, channel], 0 = black
    starts: np.ndarray  # int32 [class], the first row of each class
    counts: np.ndarray  # int32 [class], how many rows it has
    class_names: tuple[str, ...]
    splits: tuple[str, ...]  # the split of each class; empty if the folder has no splits of its own
    unreadable: tuple[str, ...]  # the name and the fault of each picture that could not be read


def load(root: Path, size: int, channels: int, progress: Progress | None = None) -> Folder:
    """Return all pictures below the root at size×size pixels, from the cache if the folder has not changed.

    A picture that cannot be read takes no row; the caller decides whether that matters.

    Raises:
      DataError: the table would be too large, or more than MOST_UNREADABLE pictures cannot be read; and as
        `folder_listing.list_pictures` raises.
      StorageError: the folder may not be read, or the cache may not be written.
    """
    listing = folder_listing.list_pictures(root)
    counts = [len(paths) for paths in listing.paths]
    shape = (sum(counts), size, size, channels)
    if (needed := int(np.prod(shape, dtype=np.int64))) > MOST_DECODED:
        raise DataError(
            f"{sum(counts):,} pictures at {size}×{size}×{channels} take {needed:,} bytes, "
            f"more than the {MOST_DECODED:,} allowed",
            str(root),
            "choose a smaller size, one channel, or fewer pictures",
        )
    identity = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    entry = cache.load_or_make(
        f"image_folder-{identity}-{size}-{channels}",
        recipe={"decoder": DECODER, "size": size, "channels": channels, "folder": listing.digest},
        layout={"images": cache.Layout(shape, np.uint8)},
        make=lambda: _decode(root, listing, shape, progress or observers.current_observer()),
    )
    return _leave_out_unreadable(entry, listing, counts)


def _leave_out_unreadable(entry: cache.Entry, listing: folder_listing.Listing, counts: list[int]) -> Folder:
    images, unreadable = entry.arrays["images"], entry.facts["unreadable"]
    rows = np.array(sorted(map(int, unreadable)), dtype=np.int64)
    if rows.size:
        images = np.delete(images, rows, axis=0)
    owner = np.repeat(np.arange(len(counts)), counts)
    readable = np.bincount(np.delete(owner, rows), minlength=len(counts)).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(readable)[:-1]]).astype(np.int32)
    faults = tuple(unreadable.values())
    return Folder(images, starts, readable, listing.class_names, listing.splits, faults)


def _decode(
    root: Path,
    listing: folder_listing.Listing,
    shape: tuple[int, int, int, int],
    progress: Progress | None,
) -> cache.Entry:
    images = np.zeros(shape, np.uint8)
    paths = [path for class_paths in listing.paths for path in class_paths]
    count, unreadable = _Counter(progress, len(paths), f"decoding {root.name}"), {}

    def decode(row: int) -> str | None:
        try:
            images[row] = picture_files.read_picture(paths[row], shape[1], shape[3])
        except DataError as error:
            return error.what
        finally:
            count()
        return None

    with warnings.catch_warnings(), _make_pool() as pool:
        warnings.simplefilter("ignore")  # Pillow warns about files that it reads nevertheless
        for row, fault in enumerate(pool.map(decode, range(len(paths)))):
            if fault is not None:
                folder = paths[row].relative_to(root.resolve()).parent
                unreadable[str(row)] = folder_listing.escape_name(f"{folder}: {fault}")
                _refuse_too_many(root, unreadable)
    return cache.Entry({"images": images}, {"unreadable": unreadable})


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
