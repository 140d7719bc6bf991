"""Arithmetic on trees of arrays that more than one part needs. This module knows nothing of the rest."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from metarun.base import PyTree


def descend(params: PyTree, direction: PyTree, rates: PyTree) -> PyTree:
    """Return params − rates ∘ direction: one step of gradient descent.

    Args:
      rates: one number for all leaves, or a tree like `params` with a number or an array for each leaf.
    """
    if jax.tree_util.treedef_is_leaf(jax.tree.structure(rates)):
        return jax.tree.map(lambda leaf, slope: leaf - rates * slope, params, direction)
    return jax.tree.map(lambda leaf, rate, slope: leaf - rate * slope, params, rates, direction)


def clip_norm(tree: PyTree, limit: float | Array) -> PyTree:
    """Return the tree, shrunk if its Euclidean norm is above `limit`: tree · min(1, limit / norm).

    It is written without the norm's square root, whose derivative has no value at zero.
    """
    squared = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))
    scale = limit * jax.lax.rsqrt(jnp.maximum(squared, limit**2))
    return jax.tree.map(lambda leaf: leaf * scale, tree)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Return whether no leaf holds an infinity or a NaN."""
    return jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def size(tree: PyTree) -> int:
    """Return how many numbers a tree of arrays, or of their shapes, holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def first(tree: PyTree) -> PyTree:
    """Return the tree at index 0 of the leading axis: one task of a batch of tasks."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def partition(tree, is_chosen: Callable[[tuple[str, ...]], bool]):
    """Split a tree in two: the chosen leaves and the others, each with None in place of the leaves of the other.

    Args:
      is_chosen: tells from the names on the way to a leaf whether it is chosen.
    """

    def keep(choice: bool):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if is_chosen(path_names(path)) == choice else None, tree
        )

    return keep(True), keep(False)


def merge(left, right):
    """Return the tree that `partition` has split; the leaves may be new."""
    return jax.tree.map(lambda a, b: b if a is None else a, left, right, is_leaf=lambda leaf: leaf is None)


def path_names(path) -> tuple[str, ...]:
    """Return the keys on a path of jax.tree_util, as text."""
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
