"""What reads a hostile file in a process of its own; see `fault.bounded`."""

import re
from pathlib import Path

import numpy as np

from metarun.backbones import safetensors_file
from metarun.blocks import edge_list
from metarun.data import (
    archives,
    examples,
    folder_listing,
    idx,
    picture_files,
    preparation,
    sentence_pairs,
    text_lines,
)
from metarun.errors import DataError, MetarunError

SIDE = 20  # pixels
PREPARED = preparation.Preparation(size=16, resize=SIDE, mean=(0.5,) * 3, deviation=(0.2,) * 3)


def read_picture(path: Path) -> None:
    """Read a picture in both ways that metarun has; both must come to the same end."""
    grey = try_to(lambda: picture_files.read_picture(path, SIDE, 1))
    colours = try_to(lambda: PREPARED.read(path))
    refused = [isinstance(result, DataError) for result in (grey, colours)]
    assert len(set(refused)) == 1, f"refused in grey and in colours: {refused}"
    if isinstance(grey, DataError):
        raise grey
    assert grey.shape == (SIDE, SIDE, 1) and grey.dtype == np.uint8
    assert colours.shape == (16, 16, 3) and colours.dtype == np.float32 and np.isfinite(colours).all()


def try_to(read):
    """Return what was read, or the error."""
    try:
        return read()
    except MetarunError as error:
        return error


def list_folder(path: Path) -> None:
    """List a folder of very many pictures in every way that metarun has."""
    listing = folder_listing.list_pictures(path)
    assert sum(map(len, listing.paths)) == count_pictures(path)
    classes = examples.list_classes(path)
    assert sum(map(len, classes.values())) == count_pictures(path)
    assert len(examples.list_queries([path])) == count_pictures(path)
    refused = try_to(lambda: sentence_pairs.read(path / "class000"))
    assert isinstance(refused, DataError)


def count_pictures(path: Path) -> int:
    """Return how many pictures the folder was made with, which its name says."""
    return int(path.name)


# Every reader of a file that a user names, for `test_special_files`.


def read_table(path: Path) -> None:
    examples.read_table(path, 2)


def read_own_sentences(path: Path) -> None:
    examples.read_pairs(path)


def read_lines(path: Path) -> None:
    text_lines.read_lines(path)


def read_edges(path: Path) -> None:
    edge_list.read(path, ("lion", "cat"))


def read_idx(path: Path) -> None:
    idx.read_bytes(path, 3, "take another one")


def read_archive(path: Path) -> None:
    limits = archives.Limits(10, 1000, 4000)
    list(archives.read_members(path, re.compile("a"), limits, "take another one"))


def read_weights(path: Path) -> None:
    safetensors_file.open_file(path)


def list_as_folder(path: Path) -> None:
    folder_listing.list_pictures(path)


def read_as_sentences(path: Path) -> None:
    sentence_pairs.read(path)


SPECIAL = (
    read_picture, read_table, read_own_sentences, read_lines, read_edges, read_idx, read_archive, read_weights,
    list_as_folder, read_as_sentences,
)  # fmt: skip


def read_in_every_way(path: Path) -> None:
    """Give the path to every reader; each must refuse it."""
    for read in SPECIAL:
        refused = try_to(lambda read=read: read(path))
        assert isinstance(refused, MetarunError), f"{read.__name__} has read it"
        assert str(refused).count("\n") == 2
    raise refused
