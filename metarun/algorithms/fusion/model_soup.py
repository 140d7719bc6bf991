"""One set of weights from several of one shape: their mean, over all members or over those that help."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base
from metarun.base import PyTree


def average(members: PyTree) -> PyTree:
    """Return the mean over the leading [member] axis of every leaf."""
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), members)


def choose_greedily(members: PyTree, criterion: Callable[[PyTree], Float[Array, ""]]) -> PyTree:
    """Return the greedy soup of Wortsman et al. 2022, arXiv 2203.05482, recipe 1.

    Members come in the order of their criterion, the lowest first. Each joins if the mean with it is not worse than the
    mean without: by the criterion the soup is at least as good as the best member.

    Args:
      members: leaves [member, ...].
      criterion: weights of ONE member -> what should be low.
    """
    losses = jax.lax.map(criterion, members)
    order = jnp.argsort(losses)
    best = jax.tree.map(lambda leaf: leaf[order[0]], members)

    def consider(carry, index):
        soup, ingredients, lowest = carry
        mixture = jax.tree.map(
            lambda mean, leaf: mean + (leaf[index] - mean) / (ingredients + 1), soup, members
        )
        loss = criterion(mixture)
        better = loss <= lowest
        soup = jax.tree.map(lambda new, old: jnp.where(better, new, old), mixture, soup)
        return (soup, ingredients + better, jnp.where(better, loss, lowest)), None

    start = best, jnp.ones((), losses.dtype), losses[order[0]]
    return jax.lax.scan(consider, start, order[1:])[0][0]


def make_criterion(algorithm: base.Algorithm, objective: base.Objective, episodes: base.Episode) -> Callable:
    """Make weights -> the mean query loss after adaptation over some tasks, leaves of `episodes` [task, ...]."""

    def criterion(weights: base.Weights):
        def judge_task(episode: base.Episode):
            learner = algorithm.adapt(weights, episode.support)
            return objective.loss(algorithm.predict(learner, episode.query.inputs), episode.query.targets)

        return jax.vmap(judge_task)(episodes).mean()

    return criterion
