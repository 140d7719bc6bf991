"""The kind of `fusion` that puts a new last layer on the features of all members."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.algorithms.fusion import refinement
from metarun.algorithms.fusion.refinement import Learner
from metarun.blocks import ensemble, networks, outer_loss
from metarun.blocks.earlier_stages import Algorithms

if TYPE_CHECKING:
    from metarun.algorithms.fusion import Config


def build(config: "Config", algorithms: Algorithms, objective: base.Objective) -> base.Algorithm:
    """Build the four functions: trains {"head"}, over the frozen {"members"}."""

    def compute_features(learners, inputs):
        stages = ensemble.compute_features(algorithms, learners, inputs)
        return jnp.concatenate([features for members in stages for features in members], axis=-1)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        members = ensemble.stack(algorithms, key, episodes, earlier)

        def answer(support):
            learners = ensemble.adapt(algorithms, members, support)
            outputs = ensemble.predict(algorithms, learners, support.inputs)
            return compute_features(learners, support.inputs), outputs[0]

        features, outputs = jax.eval_shape(answer, trees.first(episodes.support))
        head = networks.init_dense(key, features.shape[-1], outputs.shape[-1])
        return base.Weights({base.HEAD: head}, {"members": members})

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        learners = ensemble.adapt(algorithms, weights.frozen["members"], support)
        learner = Learner(learners, weights.trained[base.HEAD])
        length = jnp.square(compute_features(learners, support.inputs)).sum(axis=-1).mean()
        rate = config.fused_lr / (1 + length)
        return refinement.refine(config, predict, objective, learner, support, rate)

    def predict(learner: Learner, inputs):
        return networks.dense(learner.fusion, compute_features(learner.members, inputs))

    loss = outer_loss.make_query_loss(adapt, predict, objective)
    return base.Algorithm(init, loss, adapt, predict)
