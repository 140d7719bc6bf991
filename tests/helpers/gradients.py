"""Double precision, and derivatives by finite differences."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from helpers import trees


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Compute in double precision, for derivatives by differences."""
    with jax.enable_x64(True):
        yield


def to_float64(tree):
    """Return the tree with its floating leaves in double precision; call it within `float64()`."""

    def convert(leaf):
        leaf = np.asarray(leaf)
        return jax.device_put(leaf.astype(np.float64) if leaf.dtype.kind == "f" else leaf)

    return jax.tree.map(convert, tree)


def assert_gradient_is_that_of_differences(function: Callable, point, directions: int = 3):
    """Compare a gradient with central differences along random unit directions, in float64, and return it.

    With this step the error of the difference, h², is that of rounding, 1e-16/h: about 1e-10.
    """
    step, compute = 1e-5, jax.jit(jax.value_and_grad(function))
    gradient = compute(point)[1]
    for seed in range(directions):
        direction = trees.normal_like(point, seed)
        length = trees.dot(direction, direction) ** 0.5

        def along(distance, direction=direction, length=length):
            moved = jax.tree.map(
                lambda x, d: np.asarray(x) + distance / length * np.asarray(d), point, direction
            )
            return float(compute(moved)[0])

        difference = (along(step) - along(-step)) / (2 * step)
        np.testing.assert_allclose(trees.dot(gradient, direction) / length, difference, rtol=1e-6, atol=1e-8)
    return gradient
