"""The classes of a folder of pictures: their splits, what an episode of them can be, and what is refused."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from metarun import base, errors, options
from metarun.data import class_folders, folder_listing
from metarun.tasks import _classes

SPLITS = ("train", "validation", "test")
WAYS, SHOTS, QUERIES = 5, 1, 5  # of an episode whose config leaves them open, where the folder has enough
ROOMY = 4  # times the ways; with fewer classes validation gets none, because training needs them more
NAMED = 8  # classes or pictures that one message names

Split = Mapping[str, np.ndarray]  # {split: indices of its classes, sorted}
Config = TypeVar("Config", bound=options.ClassFolders)

logger = logging.getLogger("metarun")


def settle(config: Config) -> Config:
    """Return the config of a new run with all that it left open, chosen by the names in the folder.

    The splits are those of the shares if an episode fits into each. Otherwise the test split gets as many classes as an
    episode has, and so does validation if there are at least ROOMY times as many classes. Opens no picture.

    Raises:
      DataError, StorageError: as `folder_listing.list_pictures` raises.
    """
    listing = folder_listing.list_pictures(Path(config.folder))
    sizes = np.array([len(paths) for paths in listing.paths])
    if not listing.splits and not config.counts:
        large = int((sizes >= count_needed(config)).sum())
        ways = config.ways or max(2, min(WAYS, large // 2))
        config = replace(config, counts=choose_counts(config, len(sizes), ways))
    split = split_classes(config, listing.class_names, listing.splits)
    return fill(config, [sizes[classes] for classes in split.values()])


def choose_counts(config: options.ClassFolders, total: int, ways: int) -> tuple[int, ...]:
    """Return how many classes train, validation and test have; empty: the shares serve, or nothing would."""
    train, validation, test = count_classes(config, total)
    usual = config.shares == type(config).shares
    fits = train >= ways and test >= ways and (validation >= ways or validation == 0)
    if fits or not usual or total < 2 * ways:
        return ()
    test = max(test, ways)
    validation = max(validation, ways) if total >= ROOMY * ways else 0
    return total - validation - test, validation, test


def fill(config: Config, sizes: Sequence[np.ndarray]) -> Config:
    """Return the config with ways, shots and queries in place of null.

    Args:
      sizes: [class] for each split, how many pictures each class has.
    """
    shots = config.shots or SHOTS
    left = np.concatenate([*sizes, [0]]) - shots
    smallest = int(left[left > 0].min()) if (left > 0).any() else 1
    queries = config.queries or min(QUERIES, smallest)
    large = [int((counts >= shots + queries).sum()) for counts in sizes]
    return replace(config, ways=config.ways or max(2, min(WAYS, *large)), shots=shots, queries=queries)


def split_classes(
    config: options.ClassFolders, names: Sequence[str], splits: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the indices of the classes of each split, sorted. A split without classes is absent.

    They depend on the names, on `counts`, `shares` and `split_seed`, never on ways, shots and queries.

    Args:
      names: of the classes.
      splits: the split of each class, made by hand; empty: none is.
    """
    if splits:
        if config.counts:
            raise errors.DataError(
                "the folder has train and test folders of its own, and counts was given",
                config.folder,
                "leave task.counts out",
            )
        owner = np.array(splits)
        blocks = [np.flatnonzero(owner == name) for name in SPLITS]
    else:
        train, validation, test = count_classes(config, len(names))
        order = np.random.default_rng(config.split_seed).permutation(len(names))
        blocks = np.split(order[: train + validation + test], [train, train + validation])
    return {name: np.sort(block) for name, block in zip(SPLITS, blocks, strict=True) if block.size}


def count_classes(config: options.ClassFolders, total: int) -> tuple[int, int, int]:
    """Return how many of `total` classes are in train, validation and test."""
    if config.counts:
        train, validation, test = config.counts
        if sum(config.counts) > total:
            raise errors.DataError(
                f"counts asks for {train} + {validation} + {test} classes of {total}",
                config.folder,
                "take smaller task.counts, or add classes",
            )
        return train, validation, test
    _, validation, test = (round(share * total) for share in config.shares)
    return total - validation - test, validation, test


def check(config: options.ClassFolders, pictures: class_folders.Folder, split: Split) -> None:
    """Refuse pictures and classes from which no episode can be drawn, or warn about what is left out."""
    check_small_classes(config, pictures)
    check_ways(config, pictures, split)


def check_unreadable(config: options.ClassFolders, pictures: class_folders.Folder) -> None:
    """Refuse pictures that could not be read, or warn about them if they are to be left out."""
    if not pictures.unreadable:
        return
    what = f"{len(pictures.unreadable)} pictures cannot be read: {format_names(pictures.unreadable)}"
    if config.unreadable == "refuse":
        remedy = "replace them, take them out, or set task.unreadable=leave_out"
        raise errors.DataError(what, config.folder, remedy)
    logger.warning("%s: left out: %s", config.folder, what)


def check_small_classes(config: options.ClassFolders, pictures: class_folders.Folder) -> None:
    """Refuse classes with too few pictures for an episode, or warn about them if they are to be left out."""
    needed = count_needed(config)
    small = [
        f"{name} ({count})"
        for name, count in zip(pictures.class_names, pictures.counts, strict=True)
        if count < needed
    ]
    if not small:
        return
    what = f"{len(small)} classes have fewer than {needed} pictures (shots + queries): {format_names(small)}"
    if config.small_classes == "refuse":
        remedy = "add pictures, lower task.shots or task.queries, or set task.small_classes=leave_out"
        raise errors.DataError(what, config.folder, remedy)
    logger.warning("%s: left out: %s", config.folder, what)


def check_ways(config: options.ClassFolders, pictures: class_folders.Folder, split: Split) -> None:
    """Refuse a split from which no episode can be drawn."""
    large, ways = pictures.counts >= count_needed(config), config.ways or WAYS
    enough = {name: int(large[classes].sum()) for name, classes in split.items()}
    for name in ("train", "test", *split):
        if enough.get(name, 0) >= ways:
            continue
        counts = " + ".join(f"{enough.get(split_name, 0)} {split_name}" for split_name in SPLITS)
        raise errors.DataError(
            f"{ways} ways need more than the {enough.get(name, 0)} classes of the {name} split "
            f"with {config.shots} + {config.queries} pictures; there are {counts} classes",
            config.folder,
            advise(pictures, split, large, ways, count_needed(config)),
        )


def advise(pictures: class_folders.Folder, split: Split, large: np.ndarray, ways: int, needed: int) -> str:
    """Return the options that would let an episode be drawn."""
    remedies = ["add classes"]
    fewest = min(int(large[split[name]].sum()) if name in split else 0 for name in ("train", "test"))
    if fewest >= 2:
        remedies.append(f"take fewer: task.ways={fewest}")
    if not pictures.splits and large.all() and len(large) >= 2 * ways:
        remedies.append(f"or split them by task.counts=[{len(large) - ways},0,{ways}]")
    if not large.all():
        remedies.append(f"or lower task.shots and task.queries, whose sum is {needed}")
    return ", ".join(remedies)


def count_needed(config: options.ClassFolders) -> int:
    """Return how many pictures of a class an episode takes."""
    return (config.shots or SHOTS) + (config.queries or 1)


def format_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    beyond = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {beyond} more" if beyond > 0 else "")


def name_nodes(names: Sequence[str], split: Split) -> base.Relations:
    """Return the class names as nodes for a user's edges, those of training first. The folder itself has no edges."""
    train = split["train"]
    place = np.zeros(len(names), np.int32)
    place[train] = np.arange(len(train))
    ordered = [*train, *(index for name, classes in split.items() if name != "train" for index in classes)]
    # Validation and test, split by hand, may share names.
    nodes = dict.fromkeys(names[index] for index in ordered)
    return base.Relations(tuple(nodes), len(train), (), lambda facts: jnp.asarray(place)[facts["class"]])


def index_examples(pictures: class_folders.Folder, classes: np.ndarray) -> dict[str, np.ndarray]:
    """Return where the examples of one split are: the rows of one class after the other, and where each begins."""
    runs = [np.arange(pictures.counts[index]) + pictures.starts[index] for index in classes]
    counts = pictures.counts[classes]
    return {
        "rows": pictures.rows[np.concatenate(runs)],
        "starts": np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32),
        "counts": counts.astype(np.int32),
        "class": classes.astype(np.int32),
    }


def keep(config: options.ClassFolders, pictures: class_folders.Folder, split: Split) -> dict[str, Any]:
    """Return what a run keeps of its classes; see `base.TaskFamily.kept`."""
    by_content = getattr(config, "names_episodes_by_content", False)
    return {
        "fingerprint": {"pictures": int(pictures.counts.sum()), "sha256": pictures.fingerprint},
        "options": {"folder": pictures.fingerprint if by_content else config.folder},
        "class_names": list(pictures.class_names),
        "classes": {name: classes.tolist() for name, classes in split.items()},
        "pictures": {name: pictures.counts[classes].tolist() for name, classes in split.items()},
    }


def restore(kept: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the split that a run has kept."""
    return {name: np.array(classes, np.int32) for name, classes in kept["classes"].items()}


def shape_index(kept: Mapping[str, Any], name: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of `index_examples` for a split that a run has kept."""
    counts = kept["pictures"][name]
    shapes = {"starts": len(counts), "counts": len(counts), "class": len(counts), "rows": sum(counts)}
    return {key: jax.ShapeDtypeStruct((length,), np.int32) for key, length in shapes.items()}


def draw_rows(
    config: options.ClassFolders, data: Mapping[str, Any], key: PRNGKeyArray
) -> tuple[Int[Array, "way"], Int[Array, "way picture"]]:
    """Draw the classes of an episode, and the rows of their pictures, support first; see `index_examples`."""
    assert config.ways is not None
    per_class = count_needed(config)
    class_key, picture_key = jax.random.split(key)
    classes = _classes.choose_allowed(class_key, config.ways, data["counts"] >= per_class)
    return classes, _classes.choose_rows(data["starts"], data["counts"], classes, per_class, picture_key)
