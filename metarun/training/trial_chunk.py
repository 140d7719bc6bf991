"""The compiled chunk of trials: replicas that differ in numbers, of which one that diverges does not end the others."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key

from metarun.base import PyTree
from metarun.numbers import Numbers

ALIVE = "alive"  # the metric that says whether a learner still trained at a step


class Trials(NamedTuple):
    """What trials have of their own beside their keys and their state."""

    numbers: Numbers  # {as in `Stage.differing`: [replica]}
    alive: Array | np.ndarray  # bool [replica, member]: whether all steps so far were finite


def make_trial_chunk(outer_step: Callable, capacity: int) -> Callable:
    """Make (state, data, keys, first step, count, trials) -> (state, {name: [capacity]}, steps taken, alive).

    A replica with a step that is not finite is frozen at the state before it. The chunk ends early if all are frozen.

    Args:
      outer_step: of all learners; its last argument is the numbers of the trials.
      capacity: steps of the longest chunk.
    """
    outer_step = jax.jit(outer_step, inline=True)

    def chunk(
        state: PyTree, data: PyTree, keys: Key[Array, "replica ..."], first_step, count, trials: Trials
    ):
        arguments = (data, keys, first_step, trials.numbers)
        _, shapes, flags = jax.eval_shape(outer_step, state, *arguments)
        shapes = {**shapes, ALIVE: flags}
        table = {name: jnp.zeros((capacity, *leaf.shape), leaf.dtype) for name, leaf in shapes.items()}

        def is_unfinished(carry):
            return (carry[0] < count) & carry[3].any()

        def advance(carry):
            index, state, table, alive = carry
            stepped, metrics, finite = outer_step(state, data, keys, first_step + index, trials.numbers)
            metrics[ALIVE] = alive
            table = {name: column.at[index].set(metrics[name]) for name, column in table.items()}
            alive = alive & spread_to_members(finite)
            return index + 1, choose_learners(alive, stepped, state), table, alive

        start = (jnp.zeros((), jnp.uint32), state, table, trials.alive)
        taken, state, table, alive = jax.lax.while_loop(is_unfinished, advance, start)
        return state, table, taken, alive

    return chunk


def spread_to_members(finite: Bool[Array, "replica ..."]) -> Bool[Array, "replica ..."]:
    """Return for each learner whether its replica is finite in all members."""
    members = tuple(range(1, finite.ndim))
    return jnp.broadcast_to(finite.all(axis=members, keepdims=True), finite.shape)


def choose_learners(chosen: Bool[Array, "..."], left: PyTree, right: PyTree) -> PyTree:
    """Return the left leaves of the chosen learners and the right ones of the others."""

    def choose(mine, other):
        return jnp.where(chosen.reshape(chosen.shape + (1,) * (mine.ndim - chosen.ndim)), mine, other)

    return jax.tree.map(choose, left, right)
