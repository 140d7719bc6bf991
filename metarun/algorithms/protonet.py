"""Prototypical networks: a class is the mean of its support's features, and the nearest class wins.

Snell, Swersky, Zemel 2017, arXiv 1703.05175. With the features f and the support S_k of class k,

    c_k = 1/|S_k| Σ_{x in S_k} f(x),    p(y = k | x) = softmax_k(−d(f(x), c_k)),    loss = −log p(y | x) over the query;

d is the squared Euclidean distance or, with `distance: cosine`, −cos(f(x), c_k). `scale` is a factor of the logits, an
inverse temperature, which the paper does not have. Cosines need one, for any probability to come near 1. Distances of
many features begin large, and learn faster with less than 1: after 400 steps on Omniglot (20 ways, conv4 of width 32
with 128 flattened features) accuracy on 5-way test episodes was 76.9 ± 1.3 % with 1, 87.7 ± 1.0 % with 0.1, one seed.

The paper trains in more ways than it tests (60 for 5): `task.ways`, `task.shots` and `task.queries` are those of
training, and `evaluation.ways`, `.shots` and `.queries` those of every evaluation, validation too. Nothing learned
depends on them: the model's last layer would have no gradient, and is not among the weights.

Where we differ: the authors' code normalises training episodes by the statistics of support and query together, and
evaluates with running averages of these; here, in inductive mode, the support normalises both, in training as in
evaluation.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
from jaxtyping import Array, Float

from metarun import base, trees
from metarun.algorithms import _features, _prototypes
from metarun.ranges import Above


@dataclass(frozen=True)
class Config:
    """How far a query is from a class."""

    distance: Literal["euclidean", "cosine"] = "euclidean"  # of features; euclidean is squared
    scale: Annotated[float, Above(0)] | None = (
        None  # factor of the logits; null: 1 for euclidean, 10 for cosine
    )


class Learner(NamedTuple):
    """The features, the classes in their space, and the inputs that normalise the queries."""

    params: base.PyTree
    prototypes: Float[Array, "way feature"]
    reference: base.PyTree


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Returns:
      An algorithm whose weights are the model's without its last layer, and whose outputs are logits [example, way].

    Raises:
      ValueError: the family is no classification.
    """
    ways = _prototypes.ways_of(objective, "protonet")

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        return base.Weights(_features.init_body(model, key, trees.first(episodes.support.inputs)))

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        features = model.embed(weights.trained, support.inputs, reference=support.inputs)
        prototypes = _prototypes.class_means(features, support.targets, ways)
        return Learner(weights.trained, prototypes, support.inputs)

    def predict(learner: Learner, inputs):
        features = model.embed(learner.params, inputs, reference=learner.reference)
        return _prototypes.similarities(features, learner.prototypes, config.distance, config.scale)

    def loss(weights: base.Weights, episode: base.Episode, key):
        outputs = predict(adapt(weights, episode.support), episode.query.inputs)
        metrics = objective.training_metrics(jax.lax.stop_gradient(outputs), episode.query.targets)
        return objective.loss(outputs, episode.query.targets), metrics

    return base.Algorithm(init, loss, adapt, predict)
