"""A generator: a perceptron with one hidden layer, which writes parameters or other numbers from a vector of the task.

Its last layer begins FIRST_SCALE times as large as other layers: what it writes is small beside what it is added to.
"""

import jax
import jax.flatten_util
from jaxtyping import Array, Float, PRNGKeyArray

from metarun.base import PyTree
from metarun.blocks import networks

FIRST_SCALE = 0.1


def init(key: PRNGKeyArray, inputs: int, width: int, outputs: int) -> PyTree:
    """Return the layers of a generator of `outputs` numbers from a vector of `inputs` numbers."""
    hidden, last = networks.init_perceptron(key, [inputs, width, outputs])
    return [hidden, jax.tree.map(lambda leaf: FIRST_SCALE * leaf, last)]


def generate(layers: PyTree, vector: Float[Array, "embed"], like: PyTree) -> PyTree:
    """Return what the generator writes for a vector, in the shapes of `like`, which has as many numbers."""
    _, unravel = jax.flatten_util.ravel_pytree(like)
    return unravel(networks.perceptron(layers, vector))
