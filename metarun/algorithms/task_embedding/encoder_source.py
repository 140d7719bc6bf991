"""The sources of task vectors that are trained from scratch: an encoder of the support, and a decoder that answers."""

from typing import TYPE_CHECKING, NamedTuple

import jax
from jaxtyping import Array, Float

from metarun import base, trees
from metarun.algorithms.task_embedding import task_encoder
from metarun.base import PyTree
from metarun.blocks import outer_loss, target_kinds

if TYPE_CHECKING:
    from metarun.algorithms.task_embedding import Config


class Learner(NamedTuple):
    """A task as a vector, and what the decoder needs beside it."""

    embedding: Float[Array, "embed"]
    trained: PyTree
    support: base.Examples


def build(config: "Config", model: base.Model, problem: base.Problem) -> base.Algorithm:
    """Build the four functions.

    Returns:
      An algorithm that trains {"body", "encoder", "vector", "decoder"}, and with `source: adversarial` a
      "discriminator". Its loss metrics are those of all examples, and "divergence" or "discriminator".
    """
    variational = config.source == "variational"
    shape = task_encoder.Shape(config.dimensions, config.width, config.depth, variational, problem.spec.ways)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        trained = task_encoder.init(key, shape, model, trees.first(episodes.support))
        if not variational:
            trained["discriminator"] = task_encoder.init_discriminator(jax.random.fold_in(key, 1), shape)
        return base.Weights(trained)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        mean, _ = task_encoder.encode(shape, model, weights.trained, support)
        return Learner(mean, weights.trained, support)

    def predict(learner: Learner, inputs):
        return task_encoder.decode(shape, model, learner.trained, learner.embedding, learner.support, inputs)

    def penalise(trained, mean, deviation, key, count: int):
        """Return (the vector that the decoder gets, the penalty, its metric)."""
        if variational:
            vector = mean + deviation * jax.random.normal(key, mean.shape)
            divergence = task_encoder.compute_divergence(mean, deviation)
            return vector, config.divergence_weight * divergence / count, {"divergence": divergence}
        own_loss, encoder_loss = task_encoder.contest(trained["discriminator"], mean, key)
        return mean, own_loss + config.adversarial_weight * encoder_loss, {"discriminator": own_loss}

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        support, examples = episode.support, target_kinds.join(episode.support, episode.query)
        mean, deviation = task_encoder.encode(shape, model, weights.trained, support)
        count = examples.targets.shape[0]
        vector, penalty, penalty_metrics = penalise(weights.trained, mean, deviation, key, count)
        outputs = predict(Learner(vector, weights.trained, support), examples.inputs)
        error, metrics = outer_loss.judge(problem.objective, outputs, examples)
        return error + penalty, metrics | penalty_metrics

    return base.Algorithm(init, loss, adapt, predict)
