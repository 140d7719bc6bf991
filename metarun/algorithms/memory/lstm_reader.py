"""The recurrent reader: an LSTM over the sequence, whose state is the memory."""

import jax
import jax.numpy as jnp

from metarun.algorithms.memory.sequence_reader import Reader
from metarun.blocks import lstm


def make_reader(width: int) -> Reader:
    """Make an LSTM of `width` units; its memory is (hidden, cell), [unit] each."""

    def init(key, size, steps):
        return lstm.init(key, size, width, width)

    def read(cell, sequence, state):
        zeros = jnp.zeros(width, sequence.dtype)
        start = (zeros, zeros) if state is None else state
        return jax.lax.scan(lambda state, row: (lstm.step(cell, row, *state), None), start, sequence)[0]

    def answer(cell, state, queries):
        return jax.vmap(lambda query: lstm.step(cell, query, *state)[0])(queries)

    return Reader(init, read, answer, lambda size, steps: width)
