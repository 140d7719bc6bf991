"""A claim that holds with and without `python -O`, and comparisons of trees of arrays."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from metarun.base import PyTree


def claim(condition: Any, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def claim_same_structure(actual: PyTree, expected: PyTree, message: str) -> None:
    """Claim that two trees differ in nothing but their leaves."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (actual, expected)]
    claim(structures[0] == structures[1], f"{message}: the structures differ")


def claim_equal(actual: PyTree, expected: PyTree, message: str) -> None:
    """Claim that two trees are equal, bit for bit."""
    claim_same_structure(actual, expected, message)
    compare = np.testing.assert_array_equal
    jax.tree.map(lambda left, right: compare(left, right, err_msg=message), actual, expected)


def claim_close(actual: PyTree, expected: PyTree, message: str, rtol: float, atol: float) -> None:
    """Claim that two trees are equal up to rounding."""
    claim_same_structure(actual, expected, message)
    compare = np.testing.assert_allclose
    jax.tree.map(
        lambda left, right: compare(left, right, rtol=rtol, atol=atol, err_msg=message), actual, expected
    )


def claim_finite(tree: PyTree, message: str) -> None:
    """Claim that no number is infinite or no number."""
    claim(all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree)), message)


def describe_kinds(tree: PyTree) -> PyTree:
    """Return what jit looks at: structure, shapes, dtypes and weak types."""
    return jax.tree.map(lambda leaf: jax.typeof(leaf), tree)


def draw_normal_like(tree: PyTree, seed: int) -> PyTree:
    """Return standard normal numbers in the shapes and dtypes of the tree."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jax.device_put(generator.standard_normal(leaf.shape).astype(leaf.dtype)), tree
    )


def find_interval(values: Any) -> tuple[float, float]:
    """Return the ends of the 95 % confidence interval of the mean of many independent values."""
    values = np.asarray(values, np.float64)
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


class Counted:
    """A function that counts how often its body runs: under jit, how often it is traced."""

    def __init__(self, function: Callable) -> None:
        self.function, self.traces = function, 0

    def __call__(self, *arguments: Any) -> Any:
        """Count the call, and pass it on."""
        self.traces += 1
        return self.function(*arguments)
