"""The outer loss of an episodic learner: adapt to the support, then judge the answers to the query."""

from collections.abc import Callable
from typing import Any

import jax

from metarun import base


def make_query_loss(adapt: Callable, predict: Callable, objective: base.Objective) -> Callable:
    """Make `Algorithm.loss`: the query loss after adaptation, with the objective's training metrics."""

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        learner = adapt(weights, episode.support)
        return judge(objective, predict(learner, episode.query.inputs), episode.query)

    return loss


def judge(objective: base.Objective, outputs: base.PyTree, query: base.Examples) -> tuple[Any, dict]:
    """Return the mean loss of the outputs, and the objective's training metrics for the same outputs."""
    metrics = objective.training_metrics(jax.lax.stop_gradient(outputs), query.targets)
    return objective.loss(outputs, query.targets), metrics
