"""Checkpoints of a small training state: saved, read, and compared bit for bit."""

from pathlib import Path

import jax
import numpy as np

from helpers.training_states import Training, training
from metarun.runs import checkpoints, manifest
from metarun.runs.checkpoints import Checkpoints


def assert_same(found: object, expected: object) -> None:
    """Check that a tree that came back has the structure, the types and the bits of another."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, np.ndarray)
        assert a.dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, np.asarray(b))


def save(folder: Path, *steps: int, keep: int = 10, best: tuple[int, ...] = ()) -> None:
    """Save a state at each of the steps."""
    with Checkpoints(folder, keep) as saved:
        for step in steps:
            saved.save(step, *training(step), {"step": step}, best=step in best)


def load(checkpoint: manifest.Checkpoint, template: Training) -> Training:
    """Return both trees of a checkpoint."""
    weights = checkpoints.load_weights(checkpoint, template.weights)
    return Training(weights, checkpoints.load_memory(checkpoint, template.memory))


def names(folder: Path) -> list[str]:
    """Return the names of what lies in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())
