"""The recurrent reader: an LSTM over the sequence, whose state is the memory."""

import jax
import jax.numpy as jnp

from metarun.algorithms.memory.sequence_reader import Reader
from metarun.blocks import lstm


def make_reader(width: int) -> Reader:
    """Make an LSTM of `width` units; its memory is (hidden, cell), [unit] each."""

    def init(key, size, steps):
        return lstm.init(key, size, width, width)

    def scan(cell, sequence, state):
        def step(state, row):
            state = lstm.step(cell, row, *state)
            return state, state[0]

        zeros = jnp.zeros(width, sequence.dtype)
        return jax.lax.scan(step, (zeros, zeros) if state is None else state, sequence)

    def read(cell, sequence, state):
        return scan(cell, sequence, state)[0]

    def follow(cell, sequence):
        return scan(cell, sequence, None)[1]

    def answer(cell, state, queries):
        return jax.vmap(lambda query: lstm.step(cell, query, *state)[0])(queries)

    return Reader(init, read, answer, follow, lambda size, steps: width)
