"""A long short-term memory cell (Hochreiter, Schmidhuber 1997) as a plain function on a plain tree."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base
from metarun.base import PyTree
from metarun.blocks import networks


def init(key: PRNGKeyArray, inputs: int, recurrent: int, units: int) -> PyTree:
    """Return one matrix and one bias for all gates. The bias of the forget gate begins at 1, the others at 0."""
    layer = networks.init_dense(key, inputs + recurrent, 4 * units)
    return {
        base.KERNEL: layer[base.KERNEL],
        base.BIAS: jnp.zeros(4 * units).at[units : 2 * units].set(1.0),
    }


def step(
    cell: PyTree,
    inputs: Float[Array, "*batch feature"],
    recurrent: Float[Array, "*batch returning"],
    memory: Float[Array, "*batch unit"],
) -> tuple[Float[Array, "*batch unit"], Float[Array, "*batch unit"]]:
    """Return (hidden, memory) after one step. The gates stand in the order input i, forget f, candidate g, output o.

    memory' = sigmoid(f) · memory + sigmoid(i) · tanh(g),    hidden' = sigmoid(o) · tanh(memory')
    """
    gates = networks.dense(cell, jnp.concatenate([inputs, recurrent], axis=-1))
    input_gate, forget_gate, candidate, output_gate = jnp.split(gates, 4, axis=-1)
    memory = jax.nn.sigmoid(forget_gate) * memory + jax.nn.sigmoid(input_gate) * jnp.tanh(candidate)
    return jax.nn.sigmoid(output_gate) * jnp.tanh(memory), memory
