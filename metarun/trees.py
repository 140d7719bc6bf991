"""Arithmetic on trees of arrays that more than one part needs. Knows nothing of the rest."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from metarun.base import PyTree


def descend(params: PyTree, gradient: PyTree, rate: float) -> PyTree:
    """One step of gradient descent: params − rate · gradient, leaf by leaf."""
    return jax.tree.map(lambda leaf, slope: leaf - rate * slope, params, gradient)


def clip_norm(tree: PyTree, limit: float) -> PyTree:
    """The tree, shrunk where its Euclidean norm is above `limit`: tree · min(1, limit / norm).

    Written without the norm's square root, whose derivative has no value at zero.
    """
    squared = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))
    scale = limit * jax.lax.rsqrt(jnp.maximum(squared, limit**2))
    return jax.tree.map(lambda leaf: leaf * scale, tree)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether no leaf holds an infinity or a NaN."""
    return jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def size(tree: PyTree) -> int:
    """How many numbers the tree, of arrays or of their shapes, holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def first(tree: PyTree) -> PyTree:
    """The tree at index 0 of the leading axis: one task of a batch of tasks."""
    return jax.tree.map(lambda leaf: leaf[0], tree)
