"""A learner for a stream of supports that decides at each time to restart, to continue or to recall.

It judges states by the loss of what they predict for the newest support before they adapt to it, as the Bayesian
run lengths of MOCA (Harrison, Sharma, Finn, Pavone 2020, arXiv 1912.08866) and the memory of FTML (Finn, Rajeswaran,
Kakade, Levine 2019, arXiv 1902.08438) use what came before. With L of the newest support, under

    the chain    the learner that has gone on adapting since the last change that was seen
    the fresh    the learner of the last support alone
    the stored   learners that answered when earlier changes were seen, at most STATES of them
    the start    the meta-learned start, before it has adapted

it recalls the best stored learner if its L is the lowest of all; else it sees a change and restarts if L of the start
is below that of chain and fresh; else it continues. A change stores the learner that answered. The new chain is the
recalled learner or the old chain after an update with the support, or the restarted one. What answers is the chain or
the fresh learner, whichever had the lower L at earlier times without a change, in a mean that forgets: some
meta-learned starts are made for one jump, and a learner that goes on from there is worse.

No threshold is set by hand. Unlike MOCA it takes the best hypothesis and no mixture, and assumes no rate of changes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metarun import base
from metarun.base import PyTree

STATES = 4  # learners that are stored
FADE = 0.8  # the share of `lead` that a time leaves
CHOICES = ("continue", "restart", "recall")


class State(NamedTuple):
    """What the learner carries from one time to the next."""

    chain: PyTree
    fresh: PyTree
    stored: PyTree  # leaves [state, ...]
    since: Int[Array, "state"]  # the time at which each was stored; -1: there is none
    lead: Float[Array, ""]  # how much lower the loss of the fresh learner is than that of the chain


class AdaptiveLearner(NamedTuple):
    """The learner as functions, each for ONE stream."""

    start: Callable[[PyTree], State]  # the learner of the first support -> state
    answer: Callable[[State], PyTree]  # state -> the learner that answers
    # (weights, state, support, the learner of this support alone, time) -> (state, place of the choice in CHOICES)
    advance: Callable[..., tuple[State, Int[Array, ""]]]


def make(algorithm: base.Algorithm, objective: base.Objective) -> AdaptiveLearner | None:
    """Make the learner; None if the algorithm cannot continue, or takes no inner steps and has no start to compare."""
    update, watch = algorithm.update, algorithm.watch
    if update is None or watch is None:
        return None

    def predict_loss(learner: PyTree, support: base.Examples) -> Float[Array, ""]:
        return objective.loss(algorithm.predict(learner, support.inputs), support.targets)

    def start(first: PyTree) -> State:
        stored = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (STATES, *jnp.shape(leaf))), first)
        return State(first, first, stored, jnp.full(STATES, -1, jnp.int32), jnp.zeros(()))

    def answer(state: State) -> PyTree:
        return choose(state.lead > 0, state.fresh, state.chain)

    def advance(weights: base.Weights, state: State, support: base.Examples, restarted: PyTree, time):
        chain, fresh = predict_loss(state.chain, support), predict_loss(state.fresh, support)
        unadapted = take(watch(weights, support, base.Points((0,), lambda learner: learner)), 0)
        first = predict_loss(unadapted, support)
        stored = jax.vmap(lambda learner: predict_loss(learner, support))(state.stored)
        stored = jnp.where(state.since >= 0, stored, jnp.inf)
        best, own = jnp.argmin(stored), jnp.minimum(chain, fresh)
        recalls = stored[best] < jnp.minimum(own, first)
        restarts = ~recalls & (first < own)
        changes = recalls | restarts

        base_learner = choose(recalls, take(state.stored, best), state.chain)
        new_chain = choose(restarts, restarted, update(weights, base_learner, support))
        place = jnp.where(recalls, best, jnp.argmin(state.since))
        kept = choose(changes, answer(state), take(state.stored, place))
        lead = jnp.where(changes, state.lead, FADE * state.lead + (1 - FADE) * (chain - fresh))
        new_state = State(
            new_chain,
            restarted,
            jax.tree.map(lambda leaf, new: leaf.at[place].set(new), state.stored, kept),
            state.since.at[place].set(jnp.where(changes, jnp.int32(time), state.since[place])),
            lead,
        )
        return new_state, jnp.where(restarts | (lead > 0), 1, jnp.where(recalls, 2, 0))

    return AdaptiveLearner(start, answer, advance)


def choose(condition, chosen: PyTree, other: PyTree) -> PyTree:
    """Return the first tree where the condition holds, else the second."""
    return jax.tree.map(lambda one, two: jnp.where(condition, one, two), chosen, other)


def take(tree: PyTree, place) -> PyTree:
    """Return the tree at a place of the leading axis."""
    return jax.tree.map(lambda leaf: leaf[place], tree)
