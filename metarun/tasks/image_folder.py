"""N-way K-shot classification of the user's own pictures: a folder with a folder of pictures for each class.

    FOLDER/<class>/*.{png,jpg,...}                        the classes are split here, by `split_seed` alone
    FOLDER/{train,validation,test}/<class>/*.{png,...}    the classes are split by hand

Pictures are of any size and colour; they are scaled to `size`, stretched where they are not square, and greyed or
coloured as `channels` says. The splits are of classes, and depend on the names of the class folders and on
`split_seed`, never on the run's seed, nor on ways, shots and queries. Classes may have different numbers of
pictures; one with fewer than shots + queries is not drawn from.
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

from metarun import base, errors, losses
from metarun.data import folder as reader
from metarun.ranges import AtLeast, Between
from metarun.tasks import _classes

SPLITS = ("train", "validation", "test")
SHARES = (0.64, 0.16, 0.2)  # of the classes: miniImageNet's 64, 16 and 20 of 100 (Ravi and Larochelle 2017)
NAMED = 8  # classes or pictures in one message

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
    counts: tuple[
        Annotated[int, AtLeast(0)], ...
    ] = ()  # classes in train, validation, test; empty: by `shares`
    shares: tuple[Annotated[float, Between(0, 1)], ...] = SHARES  # of the classes, unless split by hand
    split_seed: Annotated[int, Between(0, 2**32 - 1)] = 0  # of the split of the classes; not the run's seed
    small_classes: Literal["leave_out", "refuse"] = "leave_out"  # classes of too few pictures
    unreadable: Literal["refuse", "leave_out"] = "refuse"  # pictures that cannot be read

    def __post_init__(self):
        if not self.folder:
            raise ValueError("folder is empty", "give the folder that holds the class folders")
        # The run's own config then names the same folder wherever it is read.
        object.__setattr__(self, "folder", str(Path(self.folder).expanduser().absolute()))
        if self.counts and len(self.counts) != len(SPLITS):
            raise ValueError("counts takes three numbers: train, validation, test")
        if len(self.shares) != len(SPLITS) or not math.isclose(sum(self.shares), 1):
            raise ValueError("shares takes three numbers that add up to 1: train, validation, test")


def build(config: Config) -> base.TaskFamily:
    """The family; its facts are `class`, int32 [way]: indices of the class names in sorted order.

    Raises:
      DataError: the folder is missing, unsafe or too large, holds unreadable pictures, or too few classes for an
        episode of some split.
      StorageError: the folder may not be read, or the cache may not be written.
    """
    pictures = reader.load(Path(config.folder), config.size, config.channels)
    settle_unreadable(config, pictures)
    split = split_classes(config, pictures)
    settle_small_classes(config, pictures)
    check_ways(config, pictures, split)
    per_class = config.shots + config.queries

    def sample(part, key) -> base.Episode:
        class_key, picture_key = jax.random.split(key)
        classes = _classes.choose_allowed(class_key, config.ways, part["counts"] >= per_class)
        images = _classes.gather_unequal(
            part["images"], part["starts"], part["counts"], classes, per_class, picture_key
        )
        return _classes.to_episode(images, config.shots, {"class": part["class"][classes]})

    return base.TaskFamily(
        {name: table(pictures, classes) for name, classes in split.items()},
        sample,
        losses.classification(config.ways, classes=len(pictures.class_names))._replace(
            relations=name_classes(pictures, split)
        ),
        base.Spec((config.size, config.size, config.channels), config.ways),
        functools.partial(_classes.draw, inverted=False),
        form=base.Pictures(inverted=False),
    )


def split_classes(config: Config, pictures: reader.Folder) -> dict[str, np.ndarray]:
    """The indices of the classes of each split, sorted; splits without classes are absent."""
    if pictures.splits:
        if config.counts:
            raise errors.DataError(
                "the folder has train and test folders of its own, and counts was given",
                config.folder,
                "leave counts out",
            )
        owner = np.array(pictures.splits)
        parts = [np.flatnonzero(owner == name) for name in SPLITS]
    else:
        train, validation, test = class_counts(config, len(pictures.class_names))
        order = np.random.default_rng(config.split_seed).permutation(len(pictures.class_names))
        parts = np.split(order[: train + validation + test], [train, train + validation])
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True) if part.size}


def name_classes(pictures: reader.Folder, split: dict[str, np.ndarray]) -> base.Relations:
    """The class names as nodes for a user's edges, those of the training split first; the folder relates none."""
    train = split["train"]
    place = np.zeros(len(pictures.class_names), np.int32)
    place[train] = np.arange(len(train))
    ordered = [*train, *(index for name, part in split.items() if name != "train" for index in part)]
    names = dict.fromkeys(pictures.class_names[index] for index in ordered)  # splits by hand may share names
    return base.Relations(tuple(names), len(train), (), lambda facts: jnp.asarray(place)[facts["class"]])


def class_counts(config: Config, total: int) -> tuple[int, int, int]:
    """How many of `total` classes fall to train, validation and test."""
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


def settle_unreadable(config: Config, pictures: reader.Folder) -> None:
    """Name the pictures that could not be read; refuse them unless they are to be left out."""
    if not pictures.unreadable:
        return
    found = f"{len(pictures.unreadable)} pictures cannot be read: {some_of(pictures.unreadable)}"
    if config.unreadable == "refuse":
        raise errors.DataError(
            found, config.folder, "replace them, take them out, or set unreadable to leave_out"
        )
    logger.warning("%s: left out: %s", config.folder, found)


def settle_small_classes(config: Config, pictures: reader.Folder) -> None:
    """Name the classes with too few pictures for an episode; refuse them unless they are to be left out."""
    needed = config.shots + config.queries
    small = [
        f"{name} ({count})"
        for name, count in zip(pictures.class_names, pictures.counts, strict=True)
        if count < needed
    ]
    if not small:
        return
    found = f"{len(small)} classes have fewer than {needed} pictures (shots + queries): {some_of(small)}"
    if config.small_classes == "refuse":
        raise errors.DataError(
            found, config.folder, "add pictures, take fewer shots, or set small_classes to leave_out"
        )
    logger.warning("%s: left out: %s", config.folder, found)


def check_ways(config: Config, pictures: reader.Folder, split: dict[str, np.ndarray]) -> None:
    """Refuse a split from which no episode could be drawn."""
    large = pictures.counts >= config.shots + config.queries
    enough = {name: int(large[classes].sum()) for name, classes in split.items()}
    for name in ("train", "test", *split):
        if enough.get(name, 0) >= config.ways:
            continue
        there = " + ".join(f"{enough.get(each, 0)} {each}" for each in SPLITS)
        total = len(pictures.class_names)
        remedy = "add classes, or take fewer ways"
        if not pictures.splits and large.all() and total >= 2 * config.ways:
            remedy += f", or split them by task.counts=[{total - config.ways},0,{config.ways}]"
        raise errors.DataError(
            f"{config.ways} ways need more than the {enough.get(name, 0)} classes of the {name} split "
            f"with {config.shots} + {config.queries} pictures; there are {there} classes",
            config.folder,
            remedy,
        )


def some_of(names) -> str:
    """The first names, and how many more there are."""
    beyond = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {beyond} more" if beyond > 0 else "")


def table(pictures: reader.Folder, classes: np.ndarray) -> base.PyTree:
    """The arrays of one split: its pictures, a class after the other, and where each class begins."""
    rows = [np.arange(pictures.counts[index]) + pictures.starts[index] for index in classes]
    counts = pictures.counts[classes]
    return {
        "images": np.asarray(pictures.images[np.concatenate(rows)]),
        "starts": np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32),
        "counts": counts.astype(np.int32),
        "class": classes.astype(np.int32),
    }
