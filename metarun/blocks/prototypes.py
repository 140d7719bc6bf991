"""Learners that answer with the nearest class: features, and one point in their space for each class of the support."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float

from metarun import base, options
from metarun.base import PyTree
from metarun.blocks import backbone, metric_space


class Learner(NamedTuple):
    """The parameters of the features, the classes as points, and the inputs that normalise the queries."""

    body: PyTree  # for `model.embed`
    prototypes: Float[Array, "way feature"]
    reference: PyTree  # the support's inputs


def embed_queries(model: base.Model, learner: Learner, inputs: PyTree) -> Float[Array, "query feature"]:
    """Return the features of the queries, which the support normalises."""
    return model.embed(learner.body, inputs, reference=learner.reference)


def make_adapt(model: base.Model, select_body: Callable, place_classes: Callable) -> Callable:
    """Make `Algorithm.adapt`, which gives a `Learner`.

    Args:
      select_body: weights -> the parameters of the features.
      place_classes: (weights, features [example, feature], labels [example]) -> prototypes [way, feature].
    """

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        body = select_body(weights)
        features = backbone.embed_support(model, body, support)
        return Learner(body, place_classes(weights, features, support.targets), support.inputs)

    return adapt


def make_predict(model: base.Model, config: options.Similarity) -> Callable:
    """Make `Algorithm.predict` for a `Learner`: the logits say how near a query is to each prototype."""

    def predict(learner: Learner, inputs):
        return metric_space.similarities(embed_queries(model, learner, inputs), learner.prototypes, config)

    return predict
