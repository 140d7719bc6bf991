"""The external reader: MANN to the letter of its equations, with keys for vectors and no sharpness.

No weight of a read is more than e² = 7.4 times another, and half of each example goes where the last one was read, so
every row becomes much like the mean key. Runs of version 0.2 have this reader; `addressed_reader` is the better one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun.algorithms.memory.sequence_reader import Reader
from metarun.base import PyTree
from metarun.blocks import lstm, networks


class State(NamedTuple):
    """The memory after some examples; see the equations of the package."""

    controller: tuple[Float[Array, "unit"], Float[Array, "unit"]]  # state of the LSTM: (hidden, cell)
    memory: Float[Array, "slot unit"]  # M
    read: Float[Array, "slot"]  # w^r, where the last example was found
    usage: Float[Array, "slot"]  # w^u


def make_reader(width: int, slots: int, decay: float | Array) -> Reader:
    """Make a reader with `slots` rows of `width` numbers, whose usage decays by the factor `decay` per example."""

    def init(key, size, steps):
        lstm_key, projection_key = jax.random.split(key)
        return {
            "lstm": lstm.init(lstm_key, size + width, width, width),  # it also gets the last read
            "key": networks.init_dense(projection_key, width, width),
            "gate": jnp.zeros(()),  # α
        }

    def write(layers, state: State, inputs) -> tuple[State, None]:
        controller, key, read = look_up(layers, state, inputs)
        least_used = jax.nn.one_hot(jnp.argmin(state.usage), slots, dtype=read.dtype)
        gate = jax.nn.sigmoid(layers["gate"])
        written = gate * state.read + (1 - gate) * least_used
        memory = state.memory * (1 - least_used)[:, None] + written[:, None] * key[None]
        return State(controller, memory, read, decay * state.usage + read + written), None

    def read(layers, sequence, state):
        start = make_empty(width, slots, sequence.dtype) if state is None else state
        return jax.lax.scan(lambda state, row: write(layers, state, row), start, sequence)[0]

    def answer_one(layers, state: State, query) -> Float[Array, "feature"]:
        controller, _, read = look_up(layers, state, query)
        return jnp.concatenate([controller[0], read @ state.memory])

    def answer(layers, state, queries):
        return jax.vmap(lambda query: answer_one(layers, state, query))(queries)

    def follow(layers, sequence):
        def step(state, row):
            return write(layers, state, row)[0], answer_one(layers, state, row)

        return jax.lax.scan(step, make_empty(width, slots, sequence.dtype), sequence)[1]

    return Reader(init, read, answer, follow, lambda size, steps: 2 * width)


def make_empty(width: int, slots: int, dtype) -> State:
    """Return the state before the first example: all zeros."""
    unit, unused = jnp.zeros(width, dtype), jnp.zeros(slots, dtype)
    return State((unit, unit), jnp.zeros((slots, width), dtype), unused, unused)


def look_up(layers: PyTree, state: State, inputs: Float[Array, "feature"]):
    """Return the controller's state, its key [unit], and where the key is found [slot], for one more input."""
    joined = jnp.concatenate([inputs, state.read @ state.memory])
    controller = lstm.step(layers["lstm"], joined, *state.controller)
    key = jnp.tanh(networks.dense(layers["key"], controller[0]))
    return controller, key, jax.nn.softmax(cosine(key, state.memory))


def cosine(key: Float[Array, "unit"], memory: Float[Array, "slot unit"]) -> Float[Array, "slot"]:
    """Return the cosine between the key and each row of the memory; 0 for an empty row."""
    row_scales = jax.lax.rsqrt(jnp.square(memory).sum(axis=-1) + 1e-8)
    scales = row_scales * jax.lax.rsqrt(jnp.square(key).sum() + 1e-8)
    return (memory @ key) * scales
