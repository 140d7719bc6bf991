"""Task mapping: attention maps a new task's classes to where the known tasks had theirs, before they are compared.

The set-to-set function of Ye, Hu, Zhan, Sha 2020 (FEAT, arXiv 1812.03664). With the prototypes c of a task (the means
of the support's features f, as in `protonet`), each class asks all classes what matters about it,

    a_kj = softmax_j(⟨W_q c_k, W_k c_j⟩ / √width),    ĉ_k = c_k + W_o Σ_j a_kj W_v c_j,

and a query belongs to the nearest ĉ_k. The W are learned over the known tasks and fixed within a new one: what becomes
of a new task's classes is a weighting, learned on the known tasks, of what its support shows. The objective is joint,

    loss = L_support + α · L_query,

the cross-entropies of support and query, both under the mapped prototypes ĉ.

Where we differ from FEAT: L_support is in place of its contrastive term, which maps the examples of each class by
themselves; the features are learned from the start and not pre-trained; nothing is dropped out; and ĉ has layer
normalisation, as the authors' code has it, only if `normalised`. As in `protonet`, the model's last layer is not among
the weights, and evaluation may be in other ways and shots than training.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base, trees
from metarun.algorithms import _features, _network, _prototypes
from metarun.ranges import Above


@dataclass(frozen=True)
class Config:
    """The mapping, and what it is trained for."""

    query_weight: Annotated[float, Above(0)] = 1.0  # α, of the query's loss beside the support's
    normalised: bool = (
        False  # layer normalisation of the mapped prototypes, as in FEAT; the queries have none
    )
    distance: Literal["euclidean", "cosine"] = "euclidean"  # of features; euclidean is squared
    scale: Annotated[float, Above(0)] | None = (
        None  # factor of the logits; null: 1 for euclidean, 10 for cosine
    )


class Learner(NamedTuple):
    """The features, the mapped classes in their space, and the inputs that normalise the queries."""

    params: base.PyTree
    prototypes: Float[Array, "way feature"]
    reference: base.PyTree


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Returns:
      An algorithm whose weights are `features`, the model's without its last layer, `attention`, and `norm` where it is
      normalised; whose outputs are logits [example, way]; and whose loss metrics are the objective's of the query, and
      `support_loss`.

    Raises:
      ValueError: the family is no classification.
    """
    ways = _prototypes.ways_of(objective, "mapping")

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, attention_key = jax.random.split(key)
        inputs = trees.first(episodes.support.inputs)
        body = _features.init_body(model, body_key, inputs)
        width = _features.width(model, body, inputs)
        attention = _network.init_attention(attention_key, width, width, width, width)
        weights = {"features": body, "attention": attention}
        if config.normalised:
            weights["norm"] = {"scale": jnp.ones(width), "offset": jnp.zeros(width)}
        return base.Weights(weights)

    def embed(weights: base.Weights, support: base.Examples):
        return model.embed(weights.trained["features"], support.inputs, reference=support.inputs)

    def mapped(weights: base.Weights, features, labels) -> Float[Array, "way feature"]:
        prototypes = _prototypes.class_means(features, labels, ways)
        attention = weights.trained["attention"]
        moved = prototypes + _network.attend(attention, 1, prototypes, prototypes, prototypes)
        return normalise(weights.trained["norm"], moved) if config.normalised else moved

    def logits(features, prototypes):
        return _prototypes.similarities(features, prototypes, config.distance, config.scale)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        prototypes = mapped(weights, embed(weights, support), support.targets)
        return Learner(weights.trained["features"], prototypes, support.inputs)

    def predict(learner: Learner, inputs):
        return logits(model.embed(learner.params, inputs, reference=learner.reference), learner.prototypes)

    def loss(weights: base.Weights, episode: base.Episode, key):
        support, query = episode.support, episode.query
        features = embed(weights, support)
        prototypes = mapped(weights, features, support.targets)
        support_loss = objective.loss(logits(features, prototypes), support.targets)
        outputs = predict(Learner(weights.trained["features"], prototypes, support.inputs), query.inputs)
        metrics = objective.training_metrics(jax.lax.stop_gradient(outputs), query.targets)
        joint = support_loss + config.query_weight * objective.loss(outputs, query.targets)
        return joint, metrics | {"support_loss": jax.lax.stop_gradient(support_loss)}

    return base.Algorithm(init, loss, adapt, predict)


def normalise(norm: base.PyTree, vectors: Float[Array, "way feature"]) -> Float[Array, "way feature"]:
    """Layer normalisation (Ba, Kiros, Hinton 2016, arXiv 1607.06450)."""
    mean, variance = vectors.mean(axis=-1, keepdims=True), vectors.var(axis=-1, keepdims=True)
    scale, offset = (jnp.expand_dims(norm[name], 0) for name in ("scale", "offset"))
    return (vectors - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + offset
