"""The slots reader, MANN as its reference implementations have it: heads that find one row of a memory sharply.

It differs from `slot_reader` in four things: what is written is a vector of its own and not the key, the memory is read
after the example is written, several heads read it, and the softmax over cosines has a learned sharpness. See the
equations of the package.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarun.algorithms.memory.sequence_reader import Reader
from metarun.base import PyTree
from metarun.blocks import lstm, networks

# α before training: 2 % of an example goes where the last one was found, the rest to an unused row.
FIRST_GATE = -4.0
# β before training: a row with cosine 1 outweighs one with cosine 0 by 22,000.
FIRST_SHARPNESS = 10.0
# Added to the squared length of a row in its cosine. The gate leaves a little of each example in every row, and a
# cosine alone does not see how little that is.
EMPTY = 1e-2


class State(NamedTuple):
    """The memory after some examples; see the equations of the package."""

    # State of the LSTM: (hidden, cell).
    controller: tuple[Float[Array, "unit"], Float[Array, "unit"]]
    memory: Float[Array, "slot unit"]  # M
    reads: Float[Array, "head slot"]  # w^r, where each head found the last example
    usage: Float[Array, "slot"]  # w^u


def make_reader(width: int, slots: int, decay: float | Array, heads: int) -> Reader:
    """Make a reader with `slots` rows of `width` numbers, which `heads` heads read.

    Args:
      decay: the factor of a row's usage per example.
    """

    def init(key: PRNGKeyArray, size: int, steps: int) -> PyTree:
        lstm_key, vector_key = jax.random.split(key)
        vector = networks.init_dense(vector_key, width, width)
        return {
            "lstm": lstm.init(lstm_key, size + heads * width, width, width),  # it also gets the last reads
            # The keys begin as what is written, so that an example first finds the row of one that resembles it.
            "keys": jax.tree.map(lambda leaf: jnp.concatenate([leaf] * heads, axis=-1), vector),
            "vector": vector,
            "gate": jnp.asarray(FIRST_GATE),  # α
            "sharpness": jnp.full(heads, jnp.log(FIRST_SHARPNESS)),  # log β
        }

    def see(layers: PyTree, state: State, inputs: Float[Array, "feature"]):
        """Return the LSTM's state after one more input."""
        joined = jnp.concatenate([inputs, (state.reads @ state.memory).reshape(-1)])
        return lstm.step(layers["lstm"], joined, *state.controller)

    def give(controller, reads, memory) -> Float[Array, "feature"]:
        return jnp.concatenate([controller[0], (reads @ memory).reshape(-1)])

    def write(layers: PyTree, state: State, inputs) -> State:
        controller = see(layers, state, inputs)
        vector = jnp.tanh(networks.dense(layers["vector"], controller[0]))
        unused = find_unused(state.usage)
        gate = jax.nn.sigmoid(layers["gate"])
        written = gate * state.reads.mean(axis=0) + (1 - gate) * unused
        memory = state.memory * (1 - unused)[:, None] + written[:, None] * vector[None]
        reads = look_up(layers, memory, controller[0])
        return State(controller, memory, reads, decay * state.usage + reads.sum(axis=0) + written)

    def read(layers, sequence, state):
        start = make_empty(width, slots, heads, sequence.dtype) if state is None else state
        return jax.lax.scan(lambda state, row: (write(layers, state, row), None), start, sequence)[0]

    def answer_one(layers, state: State, query) -> Float[Array, "feature"]:
        controller = see(layers, state, query)
        return give(controller, look_up(layers, state.memory, controller[0]), state.memory)

    def answer(layers, state, queries):
        return jax.vmap(lambda query: answer_one(layers, state, query))(queries)

    def follow(layers, sequence):
        def step(state, row):
            return write(layers, state, row), answer_one(layers, state, row)

        return jax.lax.scan(step, make_empty(width, slots, heads, sequence.dtype), sequence)[1]

    return Reader(init, read, answer, follow, lambda size, steps: (1 + heads) * width)


def make_empty(width: int, slots: int, heads: int, dtype) -> State:
    """Return the state before the first example: all zeros."""
    unit, rows = jnp.zeros(width, dtype), jnp.zeros((slots, width), dtype)
    return State((unit, unit), rows, jnp.zeros((heads, slots), dtype), jnp.zeros(slots, dtype))


def find_unused(usage: Float[Array, "slot"]) -> Float[Array, "slot"]:
    """Return 1 at the least used row, the first of several, and 0 elsewhere."""
    return jax.nn.one_hot(jnp.argmin(usage), len(usage), dtype=usage.dtype)


def look_up(
    layers: PyTree, memory: Float[Array, "slot unit"], hidden: Float[Array, "unit"]
) -> Float[Array, "head slot"]:
    """Return where each head finds its key in the memory."""
    keys = jnp.tanh(networks.dense(layers["keys"], hidden)).reshape(len(layers["sharpness"]), -1)
    sharpness = jnp.exp(layers["sharpness"])[:, None]
    return jax.nn.softmax(sharpness * cosine(keys, memory), axis=-1)


def cosine(keys: Float[Array, "head unit"], memory: Float[Array, "slot unit"]) -> Float[Array, "head slot"]:
    """Return the cosine between each key and each row of the memory; near 0 for a row that is all but empty."""
    row_scales = jax.lax.rsqrt(jnp.square(memory).sum(axis=-1) + EMPTY)
    key_scales = jax.lax.rsqrt(jnp.square(keys).sum(axis=-1) + 1e-8)
    return (keys @ memory.T) * key_scales[:, None] * row_scales[None]
