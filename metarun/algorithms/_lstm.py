"""A long short-term memory cell (Hochreiter, Schmidhuber 1997) as a plain function on a plain tree."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun.algorithms import _network
from metarun.base import PyTree


def init(key: PRNGKeyArray, inputs: int, recurrent: int, units: int) -> PyTree:
    """The one matrix of all gates, from the inputs and what returns, and their biases; that of the forget gate is 1."""
    layer = _network.init_dense(key, inputs + recurrent, 4 * units)
    return {"kernel": layer["kernel"], "bias": jnp.zeros(4 * units).at[units : 2 * units].set(1.0)}


def step(
    cell: PyTree,
    inputs: Float[Array, "*batch feature"],
    recurrent: Float[Array, "*batch returning"],
    memory: Float[Array, "*batch unit"],
) -> tuple[Float[Array, "*batch unit"], Float[Array, "*batch unit"]]:
    """(hidden, memory) after one step: gates input, forget, candidate and output, in this order.

    memory' = sigmoid(f) · memory + sigmoid(i) · tanh(g),    hidden' = sigmoid(o) · tanh(memory')
    """
    gates = _network.dense(cell, jnp.concatenate([inputs, recurrent], axis=-1))
    entering, forgetting, candidate, leaving = jnp.split(gates, 4, axis=-1)
    memory = jax.nn.sigmoid(forgetting) * memory + jax.nn.sigmoid(entering) * jnp.tanh(candidate)
    return jax.nn.sigmoid(leaving) * jnp.tanh(memory), memory
