"""The pictures, angles and permutations of training, validation and test; each depends on a seed of its own."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from metarun.data.sets import mnist_files

SPLITS = ("train", "validation", "test")
LABELS = 256  # different values of a byte


def describe(folder: str | None, data: mnist_files.Mnist) -> dict[str, Any]:
    """Return what a run keeps of a folder of idx files; see `base.TaskFamily.kept`."""
    arrays = (data.train.images, data.train.labels, data.test.images, data.test.labels)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return {
        "fingerprint": {"sha256": digest.hexdigest()},
        "options": {"folder": folder},
        "classes": np.unique(data.train.labels).tolist(),
        "size": list(data.train.images.shape[1:]),
    }


def split_pictures(data: mnist_files.Mnist, share: float, seed: int) -> dict[str, mnist_files.Pictures]:
    """Return the pictures of each split, sorted by label. Validation gets a share of each class of training."""
    labels = data.train.labels
    is_validation = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        generator = np.random.default_rng([seed, int(label)])
        is_validation[generator.permutation(rows)[: round(share * len(rows))]] = True
    train, validation = (
        mnist_files.Pictures(data.train.images[rows], labels[rows])
        for rows in (~is_validation, is_validation)
    )
    return {"train": train, "validation": validation, "test": data.test}


def split_sectors(counts: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Return the sectors of the circle of each split, int32.

    Sector i of n holds the angles from 360·i/n to 360·(i + 1)/n.

    Args:
      counts: the number of sectors of each split.
    """
    order = np.random.default_rng(seed).permutation(sum(counts.values()))
    blocks = np.split(order.astype(np.int32), np.cumsum([*counts.values()])[:-1])
    return {name: np.sort(block) for name, block in zip(counts, blocks, strict=True)}


def split_permutations(counts: Mapping[str, int], seed: int, pixels: int) -> dict[str, np.ndarray]:
    """Return the permutations of each split, int32 [permutation, pixel].

    Each split has a generator of its own, so that another number of training permutations leaves the test as it is.

    Args:
      counts: the number of permutations of each split.
    """

    def permute(name: str, index: int) -> np.ndarray:
        return np.random.default_rng([seed, SPLITS.index(name), index]).permutation(pixels)

    return {
        name: np.stack([permute(name, index) for index in range(count)]).astype(np.int32)
        for name, count in counts.items()
    }


def make_table(pictures: mnist_files.Pictures, tasks: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    """Return the arrays of one split.

    They are the pictures of the classes that any task has, where each class begins, and the classes of every task.
    """
    rows = np.isin(pictures.labels, np.unique(tasks))
    counts = np.bincount(pictures.labels[rows], minlength=LABELS).astype(np.int32)
    return {
        "images": np.asarray(pictures.images[rows]),
        "starts": (np.cumsum(counts) - counts).astype(np.int32),
        "counts": counts,
        "classes": np.array(tasks, np.int32),
    }
