"""The leaves of a checkpoint of another run: read in the structure of a stage here, compared with it, and hashed."""

import hashlib
import re
from collections.abc import Mapping

import numpy as np

from metarun import errors
from metarun.base import PyTree
from metarun.runs import manifest, saved_arrays, state_files
from metarun.runs.checkpoints import Checkpoint

MOST_LEAVES = 3  # that are named in an error


def read(checkpoint: Checkpoint, shapes: PyTree, names: Mapping[str, str], where: str) -> tuple[PyTree, str]:
    """Return the weights of a checkpoint of another run in the structure of `shapes`, and their hash.

    Args:
      names: of stages here and there; see `source_weights.name_leaves`.

    Returns:
      the weights as arrays of numpy, and the SHA-256 that `hash_arrays` gives, of the names there.

    Raises:
      ConfigError: the leaves are not the same, or are not finite.
    """
    leaves, structure = state_files.flatten(manifest.WEIGHTS, shapes)
    expected = {rename(name, names): leaf for name, leaf in leaves.items()}
    refuse_difference(checkpoint, state_files.describe(expected), where)
    arrays = state_files.read(checkpoint.path / manifest.WEIGHTS, expected)
    for name, array in arrays.items():
        if not np.isfinite(np.asarray(array, float)).all():
            remedy = "name another step of it, RUN/checkpoints/STAGE/STEP, or another run"
            raise errors.ConfigError(f"{shorten(name)} of the other run is not finite", where, remedy)
    return structure.unflatten(arrays[name] for name in expected), hash_arrays(arrays)


def rename(leaf: str, names: Mapping[str, str]) -> str:
    """Return the name of a leaf in the other run: all names of stages in it change at once."""
    return re.sub(r"\['([^']*)'\]", lambda key: f"[{names.get(key[1], key[1])!r}]", leaf)


def refuse_difference(checkpoint: Checkpoint, expected: Mapping[str, manifest.Leaf], where: str) -> None:
    """Refuse weights that are not those of the stage; the error names the first leaves that differ.

    Raises:
      ConfigError: a leaf is missing on one side, or has another shape or dtype.
    """
    saved = {name: leaf for name, leaf in checkpoint.leaves.items() if name.startswith(manifest.WEIGHTS)}
    names = sorted(name for name in saved.keys() | expected.keys() if saved.get(name) != expected.get(name))
    if not names:
        return
    pairs = [
        f"{shorten(name)} is {saved_arrays.format_leaf(saved.get(name))} there and "
        f"{saved_arrays.format_leaf(expected.get(name))} here"
        for name in names[:MOST_LEAVES]
    ]
    more = f", and {len(names) - MOST_LEAVES} more differ" if len(names) > MOST_LEAVES else ""
    what = f"the weights of {checkpoint.stage} do not fit: {'; '.join(pairs)}{more}"
    remedy = "use the task's sizes, the model and the algorithm of the other run, or name another run"
    raise errors.ConfigError(what, where, remedy)


def shorten(leaf: str) -> str:
    """Return the name of a leaf without the word that all begin with."""
    return leaf.removeprefix(f"{manifest.WEIGHTS}.")


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of all leaves, in the order of the names."""
    digest = hashlib.sha256()
    for name, leaf in sorted(arrays.items()):
        digest.update(f"{name} {leaf.dtype} {list(leaf.shape)}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
