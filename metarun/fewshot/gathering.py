"""Which pictures have a label, and which are to be named. Opens no picture.

A support is any number of

    a folder of class folders    FOLDER/<class>/*.jpg, in which classes may have any number of pictures
    a folder with `labels.csv`   a list of its pictures with their classes, see `data.labels_file`
    such a list, by its own name
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from metarun.data import examples, folder_listing, labels_file, picture_files
from metarun.errors import DataError

LIST = "labels.csv"
LAYOUT = f"give a folder with a subfolder of pictures for each class, or a list `file,label` such as {LIST}"

logger = logging.getLogger("metarun")


class Gathered(NamedTuple):
    """Pictures with labels, and pictures without."""

    labels: dict[Path, str]  # {picture of the support: its class}, in a fixed order
    queries: tuple[Path, ...]  # those that are in the support already are not among them
    labelled_queries: int  # how many were asked for, and have a label already


def gather(supports: Iterable[Path], queries: Sequence[Path], given: Path | None = None) -> Gathered:
    """Find the pictures of the support and the queries.

    Args:
      given: a list of labels that may not be there yet.

    Raises:
      DataError: there is no such file or folder, a folder has no classes, or a picture has two labels.
    """
    labels: dict[Path, str] = {}
    known: dict[Path, str] = {}  # by resolved path
    places = [*supports, *([given] if given is not None and given.exists() else [])]
    for place in places:
        for file, label in read_labels(place).items():
            other = known.setdefault(file.resolve(), label)
            if other != label:
                what = f"{file.name} has the labels {other} and {label}"
                raise DataError(what, str(place), "take one of the two out")
            labels.setdefault(file, label)
    files = dict.fromkeys(examples.list_queries(list(queries))) if queries else {}
    asked = [file for file in files if file.resolve() not in known]
    return Gathered(labels, tuple(asked), len(files) - len(asked))


def read_labels(place: Path) -> dict[Path, str]:
    """Return {picture: class} of one support.

    Raises:
      DataError: there is no such file or folder, or it has no labels.
    """
    if place.is_dir() and not (place / LIST).exists():
        return list_class_folders(place)
    if not place.exists():
        raise DataError("there is no such file or folder", str(place), LAYOUT)
    if picture_files.is_picture(place) and place.is_file():
        raise DataError("a picture alone has no label", str(place), LAYOUT)
    rows = labels_file.read_labels(place / LIST if place.is_dir() else place).rows
    return {row.file: row.label for row in rows if row.label}


def list_class_folders(root: Path) -> dict[Path, str]:
    """Return {picture: class} of the class folders in a folder; folders without pictures are passed over.

    Raises:
      DataError: there is no picture in a class folder.
    """
    labels: dict[Path, str] = {}
    empty = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != "."):
        files = sorted(path for path in folder.iterdir() if path.is_file() and picture_files.is_picture(path))
        labels |= dict.fromkeys(files, folder.name)
        if not files:
            empty.append(folder.name)
    if not labels:
        raise DataError("the support has no class folders with pictures", str(root), LAYOUT)
    if empty:
        logger.warning("%s: no pictures in %s", root, folder_listing.format_names(empty))
    return labels


def find_copies(files: Sequence[Path], digests: Sequence[str]) -> dict[Path, Path]:
    """Return {picture: the first one before it with the same bytes}.

    Args:
      digests: of the bytes of each file.
    """
    first: dict[str, Path] = {}
    copies: dict[Path, Path] = {}
    for file, digest in zip(files, digests, strict=True):
        original = first.setdefault(digest, file)
        if original != file:
            copies[file] = original
    return copies
