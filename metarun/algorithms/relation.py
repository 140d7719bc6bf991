"""Relation networks: a small network learns how alike a query and a class are.

Sung, Yang, Zhang, Xiang, Torr, Hospedales 2018, arXiv 1711.06025. With the features f and the support S_k of class k,

    c_k = 1/|S_k| Σ_{x in S_k} f(x),    r_k(x) = sigmoid(g([c_k, f(x)])),    loss = mean_{x, k} (r_k(x) − 1[y = k])².

The outputs are log r_k(x): the class of the largest relation wins, and the probabilities are the relations divided by
their sum. `training_loss: cross_entropy` learns softmax_k(g([c_k, f(x)])) instead, and the outputs are g. In many ways
the squared loss has a plateau where all relations are alike: after 400 steps in 20 ways of Omniglot it had not been
left, while cross-entropy gave 74 ± 2 % on 5-way test episodes, one seed.

Where we differ: the paper's g is a network of two convolutions and two dense layers over feature maps; here it is a
perceptron over the feature vectors that a model gives (as in the paper's zero-shot experiments), with `hidden` units.
The features of a class are averaged and not added, so that shots may differ. Nothing learned depends on ways and
shots: evaluation may be in others than training. The model's last layer would have no gradient, and is not among the
weights.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metarun import base, trees
from metarun.algorithms import _features, _network, _prototypes
from metarun.ranges import AtLeast


@dataclass(frozen=True)
class Config:
    """The network that relates, and what it is trained for."""

    hidden: tuple[Annotated[int, AtLeast(1)], ...] = (
        64,
        8,
    )  # units of each hidden layer of the relation network
    training_loss: Literal["squared", "cross_entropy"] = "squared"  # of the relations; squared is the paper's


class Learner(NamedTuple):
    """The features, the relation network, the classes, and the inputs that normalise the queries."""

    params: base.PyTree  # {"features", "relation"}
    prototypes: Float[Array, "way feature"]
    reference: base.PyTree


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Returns:
      An algorithm whose weights are `features`, the model's without its last layer, and `relation`; whose outputs are
      logits [example, way]; and whose loss metrics are the objective's, `loss` among them being the cross-entropy.

    Raises:
      ValueError: the family is no classification.
    """
    ways = _prototypes.ways_of(objective, "relation")

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, relation_key = jax.random.split(key)
        inputs = trees.first(episodes.support.inputs)
        body = _features.init_body(model, body_key, inputs)
        sizes = (2 * _features.width(model, body, inputs), *config.hidden, 1)
        return base.Weights({"features": body, "relation": _network.init_perceptron(relation_key, sizes)})

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        features = model.embed(weights.trained["features"], support.inputs, reference=support.inputs)
        prototypes = _prototypes.class_means(features, support.targets, ways)
        return Learner(weights.trained, prototypes, support.inputs)

    def scores(learner: Learner, inputs) -> Float[Array, "example way"]:
        features = model.embed(learner.params["features"], inputs, reference=learner.reference)
        return relate(learner.params["relation"], features, learner.prototypes)

    def outputs_of(scores):
        return jax.nn.log_sigmoid(scores) if config.training_loss == "squared" else scores

    def predict(learner: Learner, inputs):
        return outputs_of(scores(learner, inputs))

    def loss(weights: base.Weights, episode: base.Episode, key):
        relations, labels = (
            scores(adapt(weights, episode.support), episode.query.inputs),
            episode.query.targets,
        )
        metrics = objective.training_metrics(jax.lax.stop_gradient(outputs_of(relations)), labels)
        if config.training_loss == "squared":
            return squared_loss(relations, labels), metrics
        return objective.loss(relations, labels), metrics

    return base.Algorithm(init, loss, adapt, predict)


def relate(
    network: base.PyTree, features: Float[Array, "example feature"], prototypes: Float[Array, "way feature"]
) -> Float[Array, "example way"]:
    """g([c_k, f(x)]) of every pair."""
    shape = (features.shape[0], *prototypes.shape)  # [example, way, feature]
    classes = jnp.broadcast_to(prototypes[None, :, :], shape)
    queries = jnp.broadcast_to(features[:, None, :], shape)
    return _network.perceptron(network, jnp.concatenate([classes, queries], axis=-1))[..., 0]


def squared_loss(scores: Float[Array, "example way"], labels: Int[Array, "example"]) -> Float[Array, ""]:
    """The mean of (sigmoid(score) − 1[label = way])²."""
    wanted = jax.nn.one_hot(labels, scores.shape[1], dtype=scores.dtype)
    return jnp.mean(jnp.square(jax.nn.sigmoid(scores) - wanted))
