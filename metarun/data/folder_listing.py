"""The classes and pictures of a folder that nobody vouches for, by names and sizes alone. Opens no picture.

    root/<class>/*.png                            or, with splits made by hand,
    root/{train,validation,test}/<class>/*.png

A link that leads out of the root is refused. Hidden files are passed over, and other entries that are no pictures are
named in a warning.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from metarun.data import picture_files
from metarun.errors import DataError, StorageError
from metarun.plain_text import escape

SPLITS = ("train", "validation", "test")
MOST_ENTRIES = 2_000_000  # files and folders below the root
MOST_BYTES = 1 << 40  # of all picture files together
NAMED = 8  # entries that one message names

logger = logging.getLogger("metarun")


class Listing(NamedTuple):
    """The content of a folder before anything is decoded."""

    class_names: tuple[str, ...]  # sorted; with splits made by hand, sorted within each split
    splits: tuple[str, ...]  # the split of each class; empty if the folder has no splits of its own
    paths: tuple[tuple[Path, ...], ...]  # the pictures of each class, sorted by name; at least one
    digest: str  # of names, sizes and times of modification


def list_pictures(root: Path) -> Listing:
    """List the classes and their pictures.

    Raises:
      DataError: there is no such folder, it holds no class folders, a link in it leads outside, or it is beyond the
        limits of this module.
      StorageError: the folder may not be read.
    """
    with _user_errors(root):
        walk = _Walk(root)
        folders = walk.list_folders(walk.root)
        by_split = {folder.name: folder for folder in folders if folder.name in SPLITS}
        if "train" not in by_split:
            return walk.list_classes([("", folder) for folder in folders])
        if others := [folder.name for folder in folders if folder.name not in SPLITS]:
            raise DataError(
                f"beside the folder train there is {format_names(others)}",
                str(root),
                "let the folder hold either class folders, or train, validation and test only",
            )
        splits = [split for split in SPLITS if split in by_split]
        classes = [(split, folder) for split in splits for folder in walk.list_folders(by_split[split])]
        return walk.list_classes(classes)


def format_names(names: list[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    beyond = len(names) - NAMED
    return ", ".join(map(escape, names[:NAMED])) + (f" and {beyond:,} more" if beyond > 0 else "")


@contextlib.contextmanager
def _user_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        where = str(getattr(error, "filename", None) or root)
        reason = f"the folder of pictures cannot be read: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, PermissionError):
            raise StorageError(reason, where, "give this user access to it") from error
        raise DataError(reason, where, "give the folder of class folders: task.folder=DIR") from error


class _Walk:
    """A walk through a folder that counts entries and bytes, and notes what it passes over."""

    def __init__(self, root: Path) -> None:
        self.path, self.root = root, root.resolve(strict=True)
        self.entries, self.bytes = 0, 0
        self.ignored: list[str] = []  # relative names of entries that are neither class folders nor pictures

    def list_folders(self, folder: Path) -> list[Path]:
        """Return the folders directly below, sorted by name."""
        children = self._list_children(folder)
        self.ignored += [self._relative(entry) for entry in children if not entry.is_dir()]
        return [Path(entry) for entry in children if entry.is_dir()]

    def list_files(self, folder: Path) -> tuple[list[Path], list[str]]:
        """Return the pictures directly below, sorted by name, and what identifies them without reading them."""
        paths, stamps = [], []
        for entry in self._list_children(folder):
            path = Path(entry)
            if not (picture_files.is_picture(path) and entry.is_file()):
                self.ignored.append(self._relative(entry))
                continue
            status = entry.stat()
            self.bytes += status.st_size
            if self.bytes > MOST_BYTES:
                raise self._make_error(f"more than the {MOST_BYTES:,} bytes of pictures allowed")
            paths.append(path)
            stamps.append(f"{self._relative(entry)}\0{status.st_size}\0{status.st_mtime_ns}")
        return paths, stamps

    def list_classes(self, classes: list[tuple[str, Path]]) -> Listing:
        """List all classes that have pictures. `classes` are (split or "", folder)."""
        digest, kept = hashlib.sha256(), []
        for split, folder in classes:
            paths, stamps = self.list_files(folder)
            digest.update("".join(f"{stamp}\n" for stamp in stamps).encode(errors="surrogateescape"))
            if paths:
                kept.append((folder.name, split, tuple(paths)))
            else:
                self.ignored.append(f"{folder.relative_to(self.root)}/")
        if self.ignored:
            logger.warning("%s: passed over %s", self.path, format_names(self.ignored))
        if not kept:
            raise DataError(
                "there are no pictures in class folders here",
                str(self.path),
                "lay it out as FOLDER/<class>/*.png, or FOLDER/{train,validation,test}/<class>/*.png",
            )
        names, splits, all_paths = zip(*kept, strict=True)
        _refuse_classes_in_two_splits(names, splits, self.path)
        return Listing(names, splits if splits[0] else (), all_paths, digest.hexdigest())

    def _list_children(self, folder: Path) -> list[os.DirEntry[str]]:
        """Return the entries of a folder that are not hidden, sorted by name. Refuse a link out of the root."""
        children = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self.entries += 1
                if self.entries > MOST_ENTRIES:
                    raise self._make_error(f"more than the {MOST_ENTRIES:,} files allowed")
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
            raise self._make_error(f"the link {self._relative(entry)} leads nowhere") from None
        if not target.is_relative_to(self.root):
            raise self._make_error(f"the link {self._relative(entry)} leads out of the folder, to {target}")

    def _relative(self, entry: os.DirEntry[str]) -> str:
        return str(Path(entry).relative_to(self.root))

    def _make_error(self, reason: str) -> DataError:
        return DataError(reason, str(self.path), "take it out, or give a folder of pictures alone")


def _refuse_classes_in_two_splits(names: tuple[str, ...], splits: tuple[str, ...], root: Path) -> None:
    """Raise DataError about a class in two splits: a test class that training has met tests nothing new."""
    split_of: dict[str, str] = {}
    for name, split in zip(names, splits, strict=True):
        if name in split_of:
            raise DataError(
                f"the class {name} is in {split_of[name]} and in {split}: the splits must hold different classes",
                str(root),
                "put all class folders into one folder, and metarun splits the classes",
            )
        split_of[name] = split
