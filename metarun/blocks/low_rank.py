"""Low-rank updates of the kernels of a network, which stay as they are: LoRA (Hu et al. 2021, arXiv 2106.09685).

    kernel + A·B        A [inputs, rank], B [rank, outputs]

A is drawn from a Gaussian of deviation 1/√inputs and B is zero at first, so the network begins as it is. A kernel of a
convolution, [height, width, input, output], counts as a matrix of height·width·input rows.

Deviations: every kernel of the body has an update, where the paper changes those of the attention alone; and A·B has no
factor α/rank, which only scales the step size.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from metarun import base, errors, trees
from metarun.base import PyTree

DOWN, UP = "down", "up"  # A and B


def init(key: PRNGKeyArray, params: PyTree, rank: int) -> PyTree:
    """Return {"down": A, "up": B} in place of every kernel of a network, and None in place of all else.

    Raises:
      ConfigError: the network has no kernel.
    """
    kernels, structure = jax.tree.flatten(trees.partition(params, is_kernel)[0])
    if not kernels:
        what = "the network has no kernel that an update of low rank could change"
        raise errors.ConfigError(what, "model", "set algorithm.adapts: head, or take another model")
    keys = jax.random.split(key, len(kernels))
    factors = [init_factors(own, kernel.shape, rank) for own, kernel in zip(keys, kernels, strict=True)]
    return jax.tree.unflatten(structure, factors)


def init_factors(key: PRNGKeyArray, shape: tuple[int, ...], rank: int) -> dict[str, Array]:
    """Return the two factors of a kernel of this shape. No rank is above that of the kernel itself."""
    *window, outputs = shape
    inputs = math.prod(window)
    rank = min(rank, max(inputs, 1), outputs)
    down = jax.random.normal(key, (inputs, rank)) * max(inputs, 1) ** -0.5
    return {DOWN: down, UP: jnp.zeros((rank, outputs))}


def update(params: PyTree, factors: PyTree) -> PyTree:
    """Return the parameters with A·B added to every kernel.

    Args:
      factors: as `init` gives them for these parameters.
    """
    kernels, others = trees.partition(params, is_kernel)

    def change(kernel: Array, own: dict[str, Array]) -> Array:
        return kernel + (own[DOWN] @ own[UP]).reshape(kernel.shape).astype(kernel.dtype)

    return trees.merge(jax.tree.map(change, kernels, factors), others)


def is_kernel(path: tuple[str, ...]) -> bool:
    """Return whether the parameters at a path are the kernel of a layer."""
    return bool(path) and path[-1] == base.KERNEL
