"""A folder of pictures that nobody vouches for, a folder a class, to one table of pixels.

    root/<class>/*.png                            or, with splits made by hand,
    root/{train,validation,test}/<class>/*.png

Links that lead out of the root are refused, hidden files are passed over, and what is no picture is named. The
pictures are decoded in parallel, once for each size, and kept in the cache until a name, a size or a time of
modification in the folder changes.
"""

import contextlib
import hashlib
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarun.data import cache, pictures, watching
from metarun.data.sources import Progress
from metarun.errors import DataError, StorageError

SPLITS = ("train", "validation", "test")
DECODER = 1  # counts up whenever the decoded arrays change, so that older caches are made again
MOST_ENTRIES = 2_000_000  # files and folders below the root
MOST_BYTES = 1 << 40  # of all picture files together
MOST_DECODED = 1 << 34  # bytes of the table: it is held in memory, then on the device
_MOST_UNREADABLE = 1000  # whose names are kept
_NAMED = 8  # in one message
_REPORT_SECONDS = 0.1  # between two reports of progress

logger = logging.getLogger("metarun")


class Listed(NamedTuple):
    """What a folder holds, before anything is decoded."""

    class_names: tuple[str, ...]  # sorted; with splits made by hand, within each split
    splits: tuple[str, ...]  # of each class; empty where the folder has no splits of its own
    paths: tuple[tuple[Path, ...], ...]  # of each class, sorted by name; at least one
    digest: str  # of names, sizes and times of modification


class Folder(NamedTuple):
    """All pictures, as a table in which a class is a run of rows."""

    images: np.ndarray  # uint8 [example, height, width, channel], 0 = black
    starts: np.ndarray  # int32 [class], the first row of each class
    counts: np.ndarray  # int32 [class], how many rows it has
    class_names: tuple[str, ...]
    splits: tuple[str, ...]  # of each class; empty where the folder has no splits of its own
    unreadable: tuple[str, ...]  # what is wrong with each picture that could not be read, with its name


def load(root: Path, size: int, channels: int, progress: Progress | None = None) -> Folder:
    """All pictures below the root at size×size pixels, from the cache if the folder has not changed.

    A picture that cannot be read takes no row; whoever calls decides whether that matters.

    Raises:
      DataError: there is no such folder, it holds no class folders, a link in it leads outside, or it is beyond
        the limits of this module.
      StorageError: the folder may not be read, or the cache may not be written.
    """
    listed = scan(root)
    counts = [len(paths) for paths in listed.paths]
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
        recipe={"decoder": DECODER, "size": size, "channels": channels, "folder": listed.digest},
        layout={"images": cache.Layout(shape, np.uint8)},
        make=lambda: _decode(root, listed, shape, progress or watching.watcher()),
    )
    return _without_unreadable(entry, listed, counts)


def _without_unreadable(entry: cache.Entry, listed: Listed, counts: list[int]) -> Folder:
    images, unreadable = entry.arrays["images"], entry.facts["unreadable"]
    rows = np.array(sorted(map(int, unreadable)), dtype=np.int64)
    if rows.size:
        images = np.delete(images, rows, axis=0)
    owner = np.repeat(np.arange(len(counts)), counts)
    left = np.bincount(np.delete(owner, rows), minlength=len(counts)).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(left)[:-1]]).astype(np.int32)
    return Folder(images, starts, left, listed.class_names, listed.splits, tuple(unreadable.values()))


# Listing


def scan(root: Path) -> Listed:
    """The classes and their pictures, by names and sizes alone; see `load` for what is raised."""
    with _errors_for_the_user(root):
        walk = _Walk(root)
        folders = walk.folders(walk.root)
        by_split = {folder.name: folder for folder in folders if folder.name in SPLITS}
        if "train" not in by_split:
            return walk.listed([("", folder) for folder in folders])
        if others := [folder.name for folder in folders if folder.name not in SPLITS]:
            raise DataError(
                f"beside the folder train there is {_named(others)}",
                str(root),
                "let the folder hold either class folders, or train, validation and test only",
            )
        splits = [split for split in SPLITS if split in by_split]
        return walk.listed([(split, folder) for split in splits for folder in walk.folders(by_split[split])])


@contextlib.contextmanager
def _errors_for_the_user(root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        where = str(getattr(error, "filename", None) or root)
        reason = f"the folder of pictures cannot be read: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, PermissionError):
            raise StorageError(reason, where, "give this user access to it") from error
        raise DataError(reason, where, "give the folder that holds the class folders") from error


class _Walk:
    """Goes through a folder, counts, and notes what it passes over."""

    def __init__(self, root: Path) -> None:
        self.given, self.root = root, root.resolve(strict=True)
        self.entries, self.bytes = 0, 0
        self.ignored: list[str] = []  # relative names of what is neither a class folder nor a picture

    def folders(self, folder: Path) -> list[Path]:
        """The folders directly below, sorted by name."""
        inside = self._children(folder)
        self.ignored += [self._relative(entry) for entry in inside if not entry.is_dir()]
        return [Path(entry) for entry in inside if entry.is_dir()]

    def pictures(self, folder: Path) -> tuple[list[Path], list[str]]:
        """The pictures directly below, sorted by name, and what identifies them without reading them."""
        paths, stamps = [], []
        for entry in self._children(folder):
            path = Path(entry)
            if not (pictures.is_picture(path) and entry.is_file()):
                self.ignored.append(self._relative(entry))
                continue
            status = entry.stat()
            self.bytes += status.st_size
            if self.bytes > MOST_BYTES:
                raise self._refusal(f"more than the {MOST_BYTES:,} bytes of pictures allowed")
            paths.append(path)
            stamps.append(f"{self._relative(entry)}\0{status.st_size}\0{status.st_mtime_ns}")
        return paths, stamps

    def listed(self, classes: list[tuple[str, Path]]) -> Listed:
        """All classes that have pictures; `classes` are (split or "", folder)."""
        digest, kept = hashlib.sha256(), []
        for split, folder in classes:
            paths, stamps = self.pictures(folder)
            digest.update("".join(f"{stamp}\n" for stamp in stamps).encode(errors="surrogateescape"))
            if paths:
                kept.append((folder.name, split, tuple(paths)))
            else:
                self.ignored.append(f"{folder.relative_to(self.root)}/")
        if self.ignored:
            logger.warning("%s: passed over %s", self.given, _named(self.ignored))
        if not kept:
            raise DataError(
                "there are no pictures in class folders here",
                str(self.given),
                "lay it out as FOLDER/<class>/*.png, or FOLDER/{train,validation,test}/<class>/*.png",
            )
        names, splits, all_paths = zip(*kept, strict=True)
        _refuse_classes_in_two_splits(names, splits, self.given)
        return Listed(names, splits if splits[0] else (), all_paths, digest.hexdigest())

    def _children(self, folder: Path) -> list[os.DirEntry[str]]:
        """What lies in a folder, sorted by name, without hidden entries; no link that leads out of the root."""
        children = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self.entries += 1
                if self.entries > MOST_ENTRIES:
                    raise self._refusal(f"more than the {MOST_ENTRIES:,} files allowed")
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    self._check_link(entry)
                children.append(entry)
        return sorted(children, key=lambda entry: entry.name)

    def _check_link(self, entry: os.DirEntry[str]) -> None:
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):
            raise self._refusal(f"the link {self._relative(entry)} leads nowhere") from None
        if not target.is_relative_to(self.root):
            raise self._refusal(f"the link {self._relative(entry)} leads out of the folder, to {target}")

    def _relative(self, entry: os.DirEntry[str]) -> str:
        return str(Path(entry).relative_to(self.root))

    def _refusal(self, reason: str) -> DataError:
        return DataError(reason, str(self.given), "take it out, or give a folder of pictures alone")


def _refuse_classes_in_two_splits(names: tuple[str, ...], splits: tuple[str, ...], root: Path) -> None:
    """A learner that has met a test class in training is not tested on anything new."""
    seen: dict[str, str] = {}
    for name, split in zip(names, splits, strict=True):
        if name in seen:
            raise DataError(
                f"the class {name} is in {seen[name]} and in {split}: the splits must hold different classes",
                str(root),
                "put all class folders into one folder, and metarun splits the classes",
            )
        seen[name] = split


def _named(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    beyond = len(names) - _NAMED
    return ", ".join(map(_printable, names[:_NAMED])) + (f" and {beyond:,} more" if beyond > 0 else "")


def _printable(name: str) -> str:
    """A file name on one line of a terminal, whatever is in it."""
    return name if name.isprintable() else ascii(name)[1:-1]


# Decoding


def _decode(
    root: Path, listed: Listed, shape: tuple[int, int, int, int], progress: Progress | None
) -> cache.Entry:
    images = np.zeros(shape, np.uint8)
    paths = [path for of_class in listed.paths for path in of_class]
    count, unreadable = _Counter(progress, len(paths), f"decoding {root.name}"), {}

    def decode(row: int) -> str | None:
        try:
            images[row] = pictures.read_picture(paths[row], shape[1], shape[3])
        except DataError as error:
            return error.what
        finally:
            count()
        return None

    with warnings.catch_warnings(), _pool() as pool:
        warnings.simplefilter("ignore")  # of Pillow, on files that it reads nevertheless
        for row, fault in enumerate(pool.map(decode, range(len(paths)))):
            if fault is not None:
                folder = paths[row].relative_to(root.resolve()).parent
                unreadable[str(row)] = _printable(f"{folder}: {fault}")
                if len(unreadable) > _MOST_UNREADABLE:
                    raise DataError(
                        f"more than {_MOST_UNREADABLE:,} pictures cannot be read, among them "
                        f"{next(iter(unreadable.values()))}",
                        str(root),
                        "take them out",
                    )
    return cache.Entry({"images": images}, {"unreadable": unreadable})


@contextlib.contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Threads, as Pillow decodes outside Python's lock; what waits is dropped when an error ends the block."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _Counter:
    """To be called for each picture, from any thread."""

    def __init__(self, progress: Progress | None, total: int, description: str) -> None:
        self.progress, self.total, self.description = progress, total, description
        self.done, self.said, self.lock = 0, 0.0, threading.Lock()

    def __call__(self) -> None:
        with self.lock:
            self.done += 1
            due = self.done == self.total or time.monotonic() - self.said > _REPORT_SECONDS
            if self.progress is not None and due:
                self.said = time.monotonic()
                self.progress(self.done, self.total, self.description)
