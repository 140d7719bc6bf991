"""Comparisons of trees of arrays, and trees of random numbers."""

import jax
import numpy as np


def assert_close(actual, expected, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected)


def assert_equal(actual, expected) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def differ(left, right) -> bool:
    """Return whether any leaf differs."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return any(not np.array_equal(*pair) for pair in pairs)


def kind_of(tree):
    """Return what jit looks at: structure, shapes, dtypes and weak types."""
    return jax.tree.map(lambda leaf: jax.typeof(leaf), tree)


def normal_like(tree, seed: int):
    """Return standard normal numbers in the shapes and dtypes of the tree."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jax.device_put(generator.standard_normal(leaf.shape).astype(leaf.dtype)), tree
    )


def dot(left, right) -> float:
    """Return the sum of the products of all numbers."""
    return sum(float(np.vdot(*pair)) for pair in zip(*map(jax.tree.leaves, (left, right)), strict=True))
