"""The state of a training as files: a flat {path of the leaf: array}, written by Orbax.

No Python class is in it, and no pickle: a reader brings the tree structure. Only this module imports Orbax.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint

from metarun import errors
from metarun.base import PyTree
from metarun.runs import files
from metarun.runs.manifest import Leaf

logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells every step of every save


def flatten(tree: PyTree) -> tuple[dict[str, Any], Any]:
    """The leaves by their place, as one would write it, "state.weights['kernel']"; and the structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    return {f"state{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}, structure


def describe(leaves: dict[str, Any]) -> dict[str, Leaf]:
    """Shape and dtype of arrays, of Python numbers, and of what only stands for an array."""
    arrays = {name: leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for name, leaf in leaves.items()}
    return {name: Leaf(tuple(array.shape), str(array.dtype)) for name, array in arrays.items()}


def on_host(tree: PyTree) -> dict[str, np.ndarray]:
    """Copies of all leaves: on a CPU `np.asarray` would show the very buffer that is to be donated."""
    leaves, _ = flatten(tree)
    for leaf in leaves.values():
        if hasattr(leaf, "copy_to_host_async"):
            leaf.copy_to_host_async()
    arrays = {name: np.array(leaf) for name, leaf in leaves.items()}
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise TypeError(f"{objects} would need pickle")
    return arrays


def write(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Creates the folder, and returns when all is on the disk. Raises StorageError.

    Arrays of no elements are left out: Orbax refuses them, and their shape says all.
    """
    with _storage_errors(folder):
        if stored := {name: array for name, array in arrays.items() if array.size}:
            with _checkpointer() as checkpointer:
                checkpointer.save(folder, orbax.checkpoint.args.PyTreeSave(stored))
        else:
            folder.mkdir()
        for path in [*folder.rglob("*"), folder]:
            files.sync(path)


def read(folder: Path, leaves: dict[str, Any]) -> dict[str, np.ndarray]:
    """What `write` wrote, and from `leaves` the arrays that it left out. Raises CheckpointError."""
    sizes = {name: int(np.prod(leaf.shape)) for name, leaf in describe(leaves).items()}
    empty = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in leaves.items() if not sizes[name]}
    if not any(sizes.values()):
        return empty
    try:
        with _checkpointer() as checkpointer:
            stored = checkpointer.restore(folder)
        return empty | {name: np.asarray(array) for name, array in stored.items()}
    except Exception as error:  # whatever Orbax makes of bytes that are what was saved
        what = f"Orbax cannot read the checkpoint: {_first_line(error)}"
        remedy = "update orbax-checkpoint to the version in the run's environment.json"
        raise errors.CheckpointError(what, str(folder), remedy) from error


def _checkpointer() -> orbax.checkpoint.Checkpointer:
    """All arrays in a few files. With zarr3 200 MB took half the time of Orbax's default, zarr2."""
    handler = orbax.checkpoint.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=True)
    return orbax.checkpoint.Checkpointer(handler)


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Orbax raises ValueError and RuntimeError, too, for what the disk refuses."""
    with files.storage_errors(path):
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            remedy = "check space and permissions; the checkpoints before this one are intact"
            what = f"the state could not be written: {_first_line(error)}"
            raise errors.StorageError(what, str(path), remedy) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
