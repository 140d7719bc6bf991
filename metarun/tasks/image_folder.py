"""N-way K-shot classification of the user's own pictures: a folder with a folder of pictures for each class.

    FOLDER/<class>/*.{png,jpg,...}                        `split_seed` splits the classes
    FOLDER/{train,validation,test}/<class>/*.{png,...}    the classes are split by hand

Pictures may have any size and colour. They are scaled to `size`, stretched if they are not square, and become grey or
coloured as `channels` says. The splits are of classes. They depend on the names of the class folders and on
`split_seed`, never on the run's seed, nor on ways, shots and queries. Classes may have different numbers of pictures; a
class with fewer than shots + queries is not drawn from.
"""

import functools
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from metarun import base, errors, losses
from metarun.data import class_folders
from metarun.folders import expand_home
from metarun.ranges import AtLeast, Between
from metarun.tasks import _classes

SPLITS = ("train", "validation", "test")
# Shares of the classes for each split; miniImageNet has 64, 16 and 20 of 100 (Ravi and Larochelle 2017).
SHARES = (0.64, 0.16, 0.2)
NAMED = 8  # classes or pictures that one message names

logger = logging.getLogger("metarun")


@dataclass(frozen=True)
class Config:
    """Where the pictures are, and how an episode is drawn from them."""

    folder: str  # holds a folder of pictures for each class; relative to where metarun is started
    ways: Annotated[int, AtLeast(2)] = 5  # classes of an episode
    shots: Annotated[int, AtLeast(1)] = 1  # support pictures of each class
    queries: Annotated[int, AtLeast(1)] = 1  # query pictures of each class
    size: Annotated[int, Between(8, 512)] = 84  # pixels a side
    channels: Literal[1, 3] = 3  # 1: grey; 3: red, green, blue
    # Classes in train, validation and test; empty: by `shares`.
    counts: tuple[Annotated[int, AtLeast(0)], ...] = ()
    # Shares of the classes in train, validation and test, unless they are split by hand.
    shares: tuple[Annotated[float, Between(0, 1)], ...] = SHARES
    # Seed of the split of the classes; not the run's seed.
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    small_classes: Literal["leave_out", "refuse"] = "leave_out"  # what to do with classes of too few pictures
    unreadable: Literal["refuse", "leave_out"] = "refuse"  # what to do with pictures that cannot be read

    def __post_init__(self):
        if not self.folder:
            raise ValueError("folder is empty", "give the folder that holds the class folders")
        # The config in the run directory then names the same folder wherever it is read.
        object.__setattr__(self, "folder", str(expand_home(self.folder).absolute()))
        if self.counts and len(self.counts) != len(SPLITS):
            raise ValueError("counts takes three numbers: train, validation, test")
        if len(self.shares) != len(SPLITS) or not math.isclose(sum(self.shares), 1):
            raise ValueError("shares takes three numbers that add up to 1: train, validation, test")


def example(folder: Path) -> Config:
    """Write 30 classes of six pictures of coloured noise into an empty folder, and return a config for them."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 6, 8, 8, 3), dtype=np.uint8)
    for index, number in np.ndindex(noise.shape[:2]):
        path = folder / f"class{index:02}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise[index, number]).save(path)
    return Config(str(folder), size=8)


def build(config: Config) -> base.TaskFamily:
    """Build the family. Its facts are `class`, int32 [way], indices of the class names in sorted order.

    Raises:
      DataError: the folder is missing, unsafe or too large, holds unreadable pictures, or has too few classes for an
        episode of some split.
      StorageError: the folder may not be read, or the cache may not be written.
    """
    pictures = class_folders.load(Path(config.folder), config.size, config.channels)
    check_unreadable(config, pictures)
    split = split_classes(config, pictures)
    check_small_classes(config, pictures)
    check_ways(config, pictures, split)
    per_class = config.shots + config.queries

    def sample(data, key) -> base.Episode:
        class_key, picture_key = jax.random.split(key)
        classes = _classes.choose_allowed(class_key, config.ways, data["counts"] >= per_class)
        rows = _classes.choose_rows(data["starts"], data["counts"], classes, per_class, picture_key)
        return _classes.to_episode(data["images"][rows], config.shots, {"class": data["class"][classes]})

    spec = base.Spec((config.size, config.size, config.channels), config.ways, "classes")
    relations = name_classes(pictures, split)
    return base.TaskFamily(
        {name: make_table(pictures, classes) for name, classes in split.items()},
        sample,
        base.Problem(spec, losses.classification(), len(pictures.class_names), relations),
        functools.partial(_classes.draw, inverted=False),
        form=base.Pictures(inverted=False),
    )


def split_classes(config: Config, pictures: class_folders.Folder) -> dict[str, np.ndarray]:
    """Return the indices of the classes of each split, sorted. A split without classes is absent."""
    if pictures.splits:
        if config.counts:
            raise errors.DataError(
                "the folder has train and test folders of its own, and counts was given",
                config.folder,
                "leave counts out",
            )
        owner = np.array(pictures.splits)
        blocks = [np.flatnonzero(owner == name) for name in SPLITS]
    else:
        train, validation, test = count_classes(config, len(pictures.class_names))
        order = np.random.default_rng(config.split_seed).permutation(len(pictures.class_names))
        blocks = np.split(order[: train + validation + test], [train, train + validation])
    return {name: np.sort(block) for name, block in zip(SPLITS, blocks, strict=True) if block.size}


def name_classes(pictures: class_folders.Folder, split: dict[str, np.ndarray]) -> base.Relations:
    """Return the class names as nodes for a user's edges, those of training first. The folder itself has no edges."""
    train = split["train"]
    place = np.zeros(len(pictures.class_names), np.int32)
    place[train] = np.arange(len(train))
    ordered = [*train, *(index for name, classes in split.items() if name != "train" for index in classes)]
    # Validation and test, split by hand, may share names.
    names = dict.fromkeys(pictures.class_names[index] for index in ordered)
    return base.Relations(tuple(names), len(train), (), lambda facts: jnp.asarray(place)[facts["class"]])


def count_classes(config: Config, total: int) -> tuple[int, int, int]:
    """Return how many of `total` classes are in train, validation and test."""
    if config.counts:
        train, validation, test = config.counts
        if sum(config.counts) > total:
            raise errors.DataError(
                f"counts asks for {train} + {validation} + {test} classes of {total}",
                config.folder,
                "take smaller counts, or add classes",
            )
        return train, validation, test
    _, validation, test = (round(share * total) for share in config.shares)
    return total - validation - test, validation, test


def check_unreadable(config: Config, pictures: class_folders.Folder) -> None:
    """Refuse pictures that could not be read, or warn about them if they are to be left out."""
    if not pictures.unreadable:
        return
    what = f"{len(pictures.unreadable)} pictures cannot be read: {format_names(pictures.unreadable)}"
    if config.unreadable == "refuse":
        remedy = "replace them, take them out, or set unreadable to leave_out"
        raise errors.DataError(what, config.folder, remedy)
    logger.warning("%s: left out: %s", config.folder, what)


def check_small_classes(config: Config, pictures: class_folders.Folder) -> None:
    """Refuse classes with too few pictures for an episode, or warn about them if they are to be left out."""
    needed = config.shots + config.queries
    small = [
        f"{name} ({count})"
        for name, count in zip(pictures.class_names, pictures.counts, strict=True)
        if count < needed
    ]
    if not small:
        return
    what = f"{len(small)} classes have fewer than {needed} pictures (shots + queries): {format_names(small)}"
    if config.small_classes == "refuse":
        remedy = "add pictures, take fewer shots, or set small_classes to leave_out"
        raise errors.DataError(what, config.folder, remedy)
    logger.warning("%s: left out: %s", config.folder, what)


def check_ways(config: Config, pictures: class_folders.Folder, split: dict[str, np.ndarray]) -> None:
    """Refuse a split from which no episode can be drawn."""
    large = pictures.counts >= config.shots + config.queries
    enough = {name: int(large[classes].sum()) for name, classes in split.items()}
    for name in ("train", "test", *split):
        if enough.get(name, 0) >= config.ways:
            continue
        counts = " + ".join(f"{enough.get(split_name, 0)} {split_name}" for split_name in SPLITS)
        total = len(pictures.class_names)
        remedy = "add classes, or take fewer ways"
        if not pictures.splits and large.all() and total >= 2 * config.ways:
            remedy += f", or split them by task.counts=[{total - config.ways},0,{config.ways}]"
        raise errors.DataError(
            f"{config.ways} ways need more than the {enough.get(name, 0)} classes of the {name} split "
            f"with {config.shots} + {config.queries} pictures; there are {counts} classes",
            config.folder,
            remedy,
        )


def format_names(names) -> str:
    """Return the first names, and how many more there are."""
    beyond = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {beyond} more" if beyond > 0 else "")


def make_table(pictures: class_folders.Folder, classes: np.ndarray) -> base.PyTree:
    """Return the arrays of one split: the pictures of one class after the other, and where each class begins."""
    rows = [np.arange(pictures.counts[index]) + pictures.starts[index] for index in classes]
    counts = pictures.counts[classes]
    return {
        "images": np.asarray(pictures.images[np.concatenate(rows)]),
        "starts": np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32),
        "counts": counts.astype(np.int32),
        "class": classes.astype(np.int32),
    }
