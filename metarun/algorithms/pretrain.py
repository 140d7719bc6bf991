"""Pooled pre-training: one network learns all training classes, or all training tasks, at once.

With φ the body of the model and (W, b) a last layer of its own, the outer objective is the plain supervised loss of all
examples of an episode, support and query alike:

    classification    cross-entropy of W·φ(x) + b over ALL training classes, facts["class"] of the family
    regression        squared error of W·φ(x) + b, as if all tasks were one

This is the first stage of the "Baseline" of Chen et al. 2019, arXiv 1904.04232, and of Tian et al. 2020, 2003.11539.
Later stages (`finetune`, `logistic`, `centroid`) name it and adapt what it has learned. By itself it answers with the
nearest mean of the support's features (Euclidean), and in regression with W·φ(x) + b, whatever the support is.

Deviation: the papers draw batches of examples, and here a batch is the episodes of a step. Batch statistics are those
of one episode, so that an episode of many ways is nearer to the papers than one of few.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax

from metarun import base, trees
from metarun.algorithms import _features, _network, _prototypes


@dataclass(frozen=True)
class Config:
    """There is nothing to choose: the model and the training section say it all."""


class Learner(NamedTuple):
    """The pre-trained network, and the class means of the support's features."""

    trained: base.PyTree
    reference: base.PyTree  # the support's inputs
    means: base.PyTree  # [way, feature]; () in regression


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Returns:
      An algorithm that trains {"body", "head"}, and whose loss metrics are those of the pooled problem: `accuracy` is
      over all training classes.

    Raises:
      ValueError: a classification whose family does not number its training classes.
    """
    labelled = _features.has_labels(objective)
    if labelled and objective.classes is None:
        raise ValueError(
            "this task family does not number its training classes, and pretrain tells all of them apart",
            "choose another task family, or another algorithm",
        )

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, head_key = jax.random.split(key)
        inputs = trees.first(episodes.support.inputs)
        body = _features.init_body(model, body_key, inputs)
        outputs = objective.classes or _features.output_size(model, inputs)
        head = _network.init_dense(head_key, _features.width(model, body, inputs), outputs)
        return base.Weights({"body": body, "head": head})

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        trained, inputs = weights.trained, support.inputs
        if not labelled:
            return Learner(trained, inputs, ())
        features = model.embed(trained["body"], inputs, reference=inputs)
        ways = _features.ways(model, objective, inputs)
        return Learner(trained, inputs, _prototypes.class_means(features, support.targets, ways))

    def predict(learner: Learner, inputs):
        features = model.embed(learner.trained["body"], inputs, reference=learner.reference)
        if labelled:
            return -_prototypes.squared_distances(features, learner.means)
        return _network.dense(learner.trained["head"], features)

    def loss(weights: base.Weights, episode: base.Episode, key):
        inputs, targets = _features.join(episode.support, episode.query)
        if labelled:
            targets = episode.facts["class"][targets]
        outputs = _network.dense(weights.trained["head"], model.embed(weights.trained["body"], inputs))
        metrics = objective.training_metrics(jax.lax.stop_gradient(outputs), targets)
        return objective.loss(outputs, targets), metrics

    return base.Algorithm(init, loss, adapt, predict)
