"""Double precision, and derivatives by finite differences."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from metarun.base import PyTree
from metarun.testing.claims import draw_normal_like


@contextlib.contextmanager
def compute_in_float64() -> Iterator[None]:
    """Compute in double precision, for derivatives by differences."""
    with jax.enable_x64(True):
        yield


def to_float64(tree: PyTree) -> PyTree:
    """Return the tree with its floating leaves in double precision; call it within `compute_in_float64()`."""

    def convert(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        return jax.device_put(leaf.astype(np.float64) if leaf.dtype.kind == "f" else leaf)

    return jax.tree.map(convert, tree)


def multiply(left: PyTree, right: PyTree) -> float:
    """Return the sum of the products of all numbers."""
    pairs = zip(*map(jax.tree.leaves, (left, right)), strict=True)
    return sum(float(np.vdot(*pair)) for pair in pairs)


def claim_gradient(function: Callable, point: PyTree, directions: int = 3) -> PyTree:
    """Compare a gradient with central differences along random unit directions, in float64, and return it.

    With this step the error of the difference, h², is that of rounding, 1e-16/h: about 1e-10.
    """
    step, compute = 1e-5, jax.jit(jax.value_and_grad(function))
    gradient = compute(point)[1]
    for seed in range(directions):
        direction = draw_normal_like(point, seed)
        length = multiply(direction, direction) ** 0.5

        def along(distance, direction=direction, length=length):
            moved = jax.tree.map(
                lambda x, d: np.asarray(x) + distance / length * np.asarray(d), point, direction
            )
            return float(compute(moved)[0])

        difference = (along(step) - along(-step)) / (2 * step)
        slope = multiply(gradient, direction) / length
        np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-8, err_msg="the gradient is wrong")
    return gradient
