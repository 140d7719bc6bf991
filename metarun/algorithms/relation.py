"""Relation networks: a small network learns how alike a query and a class are.

Sung, Yang, Zhang, Xiang, Torr, Hospedales 2018, arXiv 1711.06025. With the features f and the support S_k of class k,

    c_k = 1/|S_k| Σ_{x in S_k} f(x),    r_k(x) = sigmoid(g([c_k, f(x)])),    loss = mean_{x, k} (r_k(x) − 1[y = k])².

The outputs are log r_k(x): the class of the largest relation wins, and the probabilities are the relations divided by
their sum. `training_loss: cross_entropy` learns softmax_k(g([c_k, f(x)])) instead, and the outputs are g. With many
ways the squared loss has a plateau where all relations are alike: after 400 steps in 20 ways of Omniglot training was
still on it, while cross-entropy gave 74 ± 2 % on 5-way test episodes, one seed.

Where we differ: the paper's g is a network of two convolutions and two dense layers over feature maps; here it is a
perceptron with `hidden` units over the model's feature vectors, as in the paper's zero-shot experiments. The features
of a class are averaged and not added, so that shots may differ. No weight depends on ways and shots, so that evaluation
may have others than training. The model's last layer would have no gradient, and is not among the weights.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metarun import base, trees
from metarun.blocks import backbone, metric_space, networks, outer_loss, prototypes, target_kinds
from metarun.ranges import AtLeast


@dataclass(frozen=True)
class Config:
    """The relation network and its loss."""

    # Units of each hidden layer of the relation network.
    hidden: tuple[Annotated[int, AtLeast(1)], ...] = (64, 8)
    # Loss of the relations; squared is the paper's.
    training_loss: Literal["squared", "cross_entropy"] = "squared"


class Learner(NamedTuple):
    """The classes as points, and the network that relates queries to them."""

    classes: prototypes.Learner
    network: base.PyTree


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions. Needs no earlier stage.

    Returns:
      An algorithm whose weights are `features`, the model's without its last layer, and `relation`. Its outputs are
      logits [example, way]; its loss metrics are the objective's, whose `loss` is the cross-entropy.

    Raises:
      ValueError: the family is no classification.
    """
    objective = problem.objective
    ways = target_kinds.require_ways(problem, "relation")

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, relation_key = jax.random.split(key)
        inputs = trees.first(episodes.support.inputs)
        body = backbone.init_body(model, body_key, inputs)
        sizes = (2 * backbone.count_features(model, body, inputs), *config.hidden, 1)
        return base.Weights({"features": body, "relation": networks.init_perceptron(relation_key, sizes)})

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        body = weights.trained["features"]
        features = backbone.embed_support(model, body, support)
        points = metric_space.class_means(features, support.targets, ways)
        return Learner(prototypes.Learner(body, points, support.inputs), weights.trained["relation"])

    def score(learner: Learner, inputs) -> Float[Array, "example way"]:
        features = prototypes.embed_queries(model, learner.classes, inputs)
        return relate(learner.network, features, learner.classes.prototypes)

    def compute_outputs(scores):
        return jax.nn.log_sigmoid(scores) if config.training_loss == "squared" else scores

    def predict(learner: Learner, inputs):
        return compute_outputs(score(learner, inputs))

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        query = episode.query
        scores = score(adapt(weights, episode.support), query.inputs)
        cross_entropy, metrics = outer_loss.judge(objective, compute_outputs(scores), query)
        if config.training_loss == "squared":
            return squared_loss(scores, query.targets), metrics
        return cross_entropy, metrics

    return base.Algorithm(init, loss, adapt, predict)


def relate(
    network: base.PyTree, features: Float[Array, "example feature"], points: Float[Array, "way feature"]
) -> Float[Array, "example way"]:
    """Return g([c_k, f(x)]) for every pair of an example and a class."""
    shape = (features.shape[0], *points.shape)  # [example, way, feature]
    classes = jnp.broadcast_to(points[None, :, :], shape)
    queries = jnp.broadcast_to(features[:, None, :], shape)
    return networks.perceptron(network, jnp.concatenate([classes, queries], axis=-1))[..., 0]


def squared_loss(scores: Float[Array, "example way"], labels: Int[Array, "example"]) -> Float[Array, ""]:
    """Return the mean of (sigmoid(score) − 1[label = way])²."""
    one_hot = jax.nn.one_hot(labels, scores.shape[1], dtype=scores.dtype)
    return jnp.mean(jnp.square(jax.nn.sigmoid(scores) - one_hot))
