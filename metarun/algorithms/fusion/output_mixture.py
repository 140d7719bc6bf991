"""The kinds of `fusion` that average the members' outputs, with weights that are equal, trained, or of the task."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from metarun import base
from metarun.algorithms.fusion import refinement
from metarun.algorithms.fusion.refinement import Learner
from metarun.blocks import ensemble, outer_loss
from metarun.blocks.earlier_stages import Algorithms

if TYPE_CHECKING:
    from metarun.algorithms.fusion import Config


def build(config: "Config", algorithms: Algorithms, objective: base.Objective) -> base.Algorithm:
    """Build the four functions: trains {"scores"} or {"log_temperature"} or nothing, over the frozen {"members"}."""
    compute_losses = make_losses(algorithms, objective)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        members = ensemble.stack(algorithms, key, episodes, earlier)
        scores = jnp.zeros(ensemble.count(members))
        start = {"weighted": {"scores": scores}, "per_task": {"log_temperature": jnp.zeros(())}}
        return base.Weights(start.get(config.kind, ()), {"members": members})

    def compute_scores(weights: base.Weights, learners, support: base.Examples):
        if config.kind == "weighted":
            return weights.trained["scores"]
        if config.kind == "per_task":
            return -compute_losses(learners, support) * jnp.exp(-weights.trained["log_temperature"])
        return jnp.zeros(ensemble.count(weights.frozen["members"]))

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        learners = ensemble.adapt(algorithms, weights.frozen["members"], support)
        learner = Learner(learners, compute_scores(weights, learners, support))
        return refinement.refine(config, predict, objective, learner, support)

    def predict(learner: Learner, inputs):
        outputs = ensemble.predict(algorithms, learner.members, inputs)
        return ensemble.mix(outputs, jax.nn.log_softmax(learner.fusion), config.mixes == "probabilities")

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        learner, query = adapt(weights, episode.support), episode.query
        shares = jax.nn.softmax(learner.fusion)
        fused_loss, metrics = outer_loss.judge(objective, predict(learner, query.inputs), query)
        metrics = metrics | {f"weight_{index}": share for index, share in enumerate(shares)}
        if config.outer_loss == "fused":
            return fused_loss, metrics
        member_loss = jnp.sum(shares * compute_losses(learner.members, query))
        return member_loss + (fused_loss if config.outer_loss == "both" else 0.0), metrics

    return base.Algorithm(init, loss, adapt, predict)


def make_losses(algorithms: Algorithms, objective: base.Objective) -> Callable:
    """Make (learners, examples) -> the loss of each member, [member]."""

    def compute_losses(learners, examples: base.Examples):
        outputs = ensemble.predict(algorithms, learners, examples.inputs)
        return jax.vmap(objective.loss, in_axes=(0, None))(outputs, examples.targets)

    return compute_losses
