"""Arrays that travel between processes, through compiled collectives and bit for bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from metarun.base import PyTree


def collect(tree: PyTree) -> PyTree:
    """Return arrays of which every leaf is whole on this process. All processes call it together."""
    leaves = jax.tree.leaves(tree)
    if all(leaf.is_fully_addressable for leaf in leaves if isinstance(leaf, jax.Array)):
        return tree
    mesh = next(leaf.sharding.mesh for leaf in leaves if not leaf.is_fully_addressable)
    whole = jax.jit(_copy, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)


def _copy(tree: PyTree) -> PyTree:
    """Return copies. It has a name, so that one compilation serves all calls."""
    return jax.tree.map(jnp.copy, tree)


def broadcast(tree: PyTree) -> PyTree:
    """Return the tree that process 0 calls it with, as numpy arrays. All processes call it, with the same shapes."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf) for leaf in leaves]
    content = np.concatenate([np.zeros(0, np.uint8), *map(view_bytes, arrays)])
    content = np.asarray(multihost_utils.broadcast_one_to_all(content))
    pieces = np.split(content, np.cumsum([array.nbytes for array in arrays])[:-1])
    return jax.tree.unflatten(
        structure,
        [
            np.frombuffer(piece.tobytes(), array.dtype).reshape(array.shape)
            for piece, array in zip(pieces[: len(arrays)], arrays, strict=True)
        ],
    )


def make_zeros(leaf: Any) -> np.ndarray:
    """Return an array that stands for one that another process has."""
    return np.zeros(leaf.shape, leaf.dtype)


def view_bytes(array: np.ndarray) -> np.ndarray:
    """Return the content as bytes: a sum over the processes would change the sign of a zero."""
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
