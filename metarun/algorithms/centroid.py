"""The nearest class mean of frozen features: no training and no gradient, for each task an average.

With f the features from the body of the stage `pretrained`, and c_k the mean of those of class k in the support, the
logits of a query are −‖f(x) − c_k‖². Features first become (Wang et al. 2019, SimpleShot, arXiv 1911.04623)

    transform: none           f                            their UN
    transform: unit           f / ‖f‖                      their L2N
    transform: centred_unit   (f − m) / ‖f − m‖            their CL2N, m the mean of f over training examples

Deviation: m is the mean over the episodes of the stage's first step (`tasks_per_step` of them), not over the whole
training split.

The stage has nothing to train: give it `training: {steps: 1, tasks_per_step: 32}`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax

from metarun import base, trees
from metarun.algorithms import _features, _inner, _prototypes, _transfer


@dataclass(frozen=True)
class Config:
    """The features."""

    pretrained: str = "pretrain"  # name of the earlier stage whose features are used
    transform: Literal["none", "unit", "centred_unit"] = (
        "centred_unit"  # of the features, before anything else
    )


class Learner(NamedTuple):
    """The frozen weights, and the class means of one task."""

    frozen: base.PyTree
    means: base.PyTree  # [way, feature]
    reference: base.PyTree  # the support's inputs


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions, on the earlier stage `pretrained`.

    Returns:
      An algorithm that trains nothing: its weights are the frozen {"body", "mean"}. Its init raises ConfigError where
      that stage has another model.

    Raises:
      ValueError: there is no such stage, or no classes.
    """
    _features.refuse_numbers(objective, "centroid")
    _transfer.refuse_missing(config.pretrained, earlier)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs = trees.first(episodes.support.inputs)
        body = _transfer.body_of(config.pretrained, earlier[config.pretrained], model, inputs)
        if config.transform != "centred_unit":
            return base.Weights((), {"body": body, "mean": ()})
        features = jax.lax.map(lambda task: model.embed(body, task, reference=task), episodes.support.inputs)
        return base.Weights((), {"body": body, "mean": features.mean(axis=(0, 1))})

    def features_of(frozen, inputs, reference):
        features = model.embed(frozen["body"], inputs, reference=reference)
        if config.transform == "none":
            return features
        if config.transform == "centred_unit":
            features = features - frozen["mean"][None]
        return _prototypes.unit(features)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        inputs = support.inputs
        features = features_of(weights.frozen, inputs, inputs)
        ways = _features.ways(model, objective, inputs)
        return Learner(weights.frozen, _prototypes.class_means(features, support.targets, ways), inputs)

    def predict(learner: Learner, inputs):
        features = features_of(learner.frozen, inputs, learner.reference)
        return -_prototypes.squared_distances(features, learner.means)

    def loss(weights: base.Weights, episode: base.Episode, key):
        outputs = predict(adapt(weights, episode.support), episode.query.inputs)
        return _inner.query_loss(objective, outputs, episode.query)

    return base.Algorithm(init, loss, adapt, predict)
