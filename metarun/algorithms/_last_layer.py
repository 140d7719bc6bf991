"""What the last layer of a learner sees, for any algorithm: the derivative of its outputs by that layer's matrix.

An algorithm has no function that gives features. But where outputs are features · W + b with a matrix W that stands in
the learner, the derivative of output o of an example by column o of W is that example's features: exact, whatever
the body is and however it was adapted, for one product of matrices more than the outputs cost.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarun import errors
from metarun.algorithms import _features, _inner
from metarun.base import PyTree


def is_matrix(path: tuple[str, ...]) -> bool:
    """Whether a path in a learner leads to the matrix of its last layer."""
    return path[-2:] == (_features.HEAD, "kernel")


def features(
    predict: Callable, learner: PyTree, inputs: PyTree, stage: str
) -> Float[Array, "*batch feature"]:
    """The features of a learner of an earlier stage, [example, feature]; of a sentence [example, token, feature].

    Raises:
      ConfigError: the learner has no last layer that gives its outputs, as that of a metric learner.
    """
    chosen, rest = _inner.partition(learner, is_matrix)
    matrices, structure = jax.tree.flatten(chosen)

    def outputs(matrix):
        return predict(_inner.merge(rest, structure.unflatten([matrix])), inputs)

    if len(matrices) != 1 or jax.eval_shape(outputs, *matrices).shape[-1] != matrices[0].shape[-1]:
        raise errors.ConfigError(
            f"the learner of the stage {stage} has no last layer `{_features.HEAD}` whose outputs are its own",
            "algorithm",
            "use outputs in place of features, or name a stage such as maml",
        )
    shape, pull = jax.eval_shape(outputs, *matrices).shape, jax.vjp(outputs, *matrices)[1]
    rows = int(np.prod(shape[:-1]))
    basis = jnp.zeros((rows, rows, shape[-1]), matrices[0].dtype).at[:, :, 0].set(jnp.eye(rows))
    (slopes,) = jax.vmap(pull)(basis.reshape(rows, *shape))  # [row, feature, output]
    return slopes[:, :, 0].reshape(*shape[:-1], -1)
