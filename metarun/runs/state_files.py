"""Trees of arrays as files: a flat {name of the leaf: array}, written by Orbax.

The files hold no Python class and no pickle: whoever reads them brings the structure. Only this module imports Orbax.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metarun import errors
from metarun.base import PyTree
from metarun.runs import files
from metarun.runs.manifest import Leaf

logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax logs every step of every save


def flatten(root: str, tree: PyTree) -> tuple[dict[str, Any], Any]:
    """Return the leaves by their names, written as in code: "weights.trained['kernel']"; and the structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    return {f"{root}{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}, structure


def describe(leaves: dict[str, Any]) -> dict[str, Leaf]:
    """Return shapes and dtypes. A leaf is an array, a Python number, or a stand-in that has a shape and a dtype."""
    arrays = {name: leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for name, leaf in leaves.items()}
    return {name: Leaf(tuple(array.shape), str(array.dtype)) for name, array in arrays.items()}


def copy_to_host(root: str, tree: PyTree) -> dict[str, np.ndarray]:
    """Return copies of all leaves. On a CPU `np.asarray` would be a view of the buffer that the caller may donate.

    Raises:
      TypeError: a leaf is no array of numbers.
    """
    leaves, _ = flatten(root, tree)
    for leaf in leaves.values():
        if hasattr(leaf, "copy_to_host_async"):
            leaf.copy_to_host_async()
    arrays = {name: np.array(leaf) for name, leaf in leaves.items()}
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise TypeError(f"{objects} would need pickle")
    return arrays


def write(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Create the folder, and return when all is on the disk. Raises StorageError.

    Arrays without elements are left out, because Orbax refuses them and their shape says all.
    """
    with _storage_errors(folder):
        if stored := {name: array for name, array in arrays.items() if array.size}:
            from orbax.checkpoint import args

            with _make_checkpointer() as checkpointer:
                checkpointer.save(folder, args.PyTreeSave(stored))
        else:
            folder.mkdir()
        for path in [*folder.rglob("*"), folder]:
            files.sync(path)


def read(folder: Path, leaves: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays that `write` wrote. Those that it left out are made from the shapes of `leaves`.

    Raises:
      CheckpointError: the folder is missing, or Orbax cannot read it.
    """
    sizes = {name: int(np.prod(leaf.shape)) for name, leaf in describe(leaves).items()}
    empty = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in leaves.items() if not sizes[name]}
    if not any(sizes.values()):
        return empty
    if not folder.is_dir():
        remedy = "copy it from where the run was trained; evaluation needs weights/ alone"
        raise errors.CheckpointError(f"the checkpoint has no {folder.name}/", str(folder.parent), remedy)
    try:
        with _make_checkpointer() as checkpointer:
            stored = checkpointer.restore(folder)
        return empty | {name: np.asarray(array) for name, array in stored.items()}
    except Exception as error:  # the files are those that were saved, and Orbax may raise anything about them
        what = f"Orbax cannot read the checkpoint: {_first_line(error)}"
        remedy = "update orbax-checkpoint to the version in the run's environment.json"
        raise errors.CheckpointError(what, str(folder), remedy) from error


def _make_checkpointer() -> Any:
    """Return a checkpointer that puts all arrays into a few files.

    With zarr3, saving 200 MB took half the time of Orbax's default, zarr2. Orbax is imported here and not above: that
    takes a third of a second, in which a run can begin.

    In a run of several processes one of them saves and restores, and Orbax must not wait for the others.
    """
    import orbax.checkpoint

    own = jax.process_index()
    alone = orbax.checkpoint.options.MultiprocessingOptions(
        primary_host=own, active_processes={own} if jax.process_count() > 1 else None
    )
    handler = orbax.checkpoint.PyTreeCheckpointHandler(
        use_ocdbt=True, use_zarr3=True, multiprocessing_options=alone
    )
    return orbax.checkpoint.Checkpointer(handler, multiprocessing_options=alone)


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into StorageError; Orbax raises ValueError and RuntimeError for it, too."""
    with files.storage_errors(path):
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            remedy = "check space and permissions; the checkpoints before this one are intact"
            what = f"the arrays could not be written: {_first_line(error)}"
            raise errors.StorageError(what, str(path), remedy) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
