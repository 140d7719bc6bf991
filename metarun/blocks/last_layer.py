"""The features that the last layer of any learner sees: the derivative of its outputs by that layer's matrix.

An algorithm has no function that gives features. But where outputs are features · W + b, and the matrix W stands in the
learner, the derivative of output o of an example by column o of W is the features of that example. This is exact for
every body and every way to adapt it, and costs one product of matrices more than the outputs.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarun import base, errors, trees
from metarun.base import PyTree


def compute_features(
    predict: Callable, learner: PyTree, inputs: PyTree, stage: str
) -> Float[Array, "*batch feature"]:
    """Return the features of a learner of an earlier stage: [example, feature], or [example, token, feature].

    Raises:
      ConfigError: the learner has no last layer that gives its outputs, as for example a metric learner.
    """
    matrix_tree, rest = trees.partition(learner, is_matrix)
    matrices, structure = jax.tree.flatten(matrix_tree)

    def compute_outputs(matrix):
        return predict(trees.merge(rest, structure.unflatten([matrix])), inputs)

    if len(matrices) != 1 or jax.eval_shape(compute_outputs, *matrices).shape[-1] != matrices[0].shape[-1]:
        raise errors.ConfigError(
            f"the learner of the stage {stage} has no last layer `{base.HEAD}` whose outputs are its own",
            "algorithm",
            "use outputs in place of features, or name a stage such as maml",
        )
    shape, pull = jax.eval_shape(compute_outputs, *matrices).shape, jax.vjp(compute_outputs, *matrices)[1]
    rows = int(np.prod(shape[:-1]))
    # The cotangents: for each row, 1 at its first output and 0 elsewhere.
    basis = jnp.zeros((rows, rows, shape[-1]), matrices[0].dtype).at[:, :, 0].set(jnp.eye(rows))
    (slopes,) = jax.vmap(pull)(basis.reshape(rows, *shape))  # [row, feature, output]
    return slopes[:, :, 0].reshape(*shape[:-1], -1)


def is_matrix(path: tuple[str, ...]) -> bool:
    """Return whether a path in a learner leads to the matrix of its last layer."""
    return path[-2:] == (base.HEAD, base.KERNEL)
