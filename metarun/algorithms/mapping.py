"""Task mapping: attention maps a new task's classes to where the known tasks had theirs, before they are compared.

The set-to-set function of Ye, Hu, Zhan, Sha 2020 (FEAT, arXiv 1812.03664). With the prototypes c of a task (the means
of the support's features f, as in `protonet`), each class attends to all classes of the task,

    a_kj = softmax_j(⟨W_q c_k, W_k c_j⟩ / √width),    ĉ_k = c_k + W_o Σ_j a_kj W_v c_j,

and a query belongs to the nearest ĉ_k. The matrices W are learned over the known tasks and fixed within a new one: they
say how to weight what the support of a new task shows. The objective is joint,

    loss = L_support + α · L_query,

the cross-entropies of support and query, both under the mapped prototypes ĉ.

Where we differ from FEAT: L_support is in place of its contrastive term, which maps the examples of each class by
themselves; the features are learned from the start and not pre-trained, unless `pretrained` names a stage; nothing is
dropped out; and ĉ has layer normalisation, as in the authors' code, only with `normalised`. W_o begins at random, or
with `first_mapping: identity` at zero, so that without that ĉ = c, as in a prototypical network. In one shot the
support is its own prototype: L_support alone is least without any mapping, and `query_weight` says how much it counts.
As in `protonet`, the model's last layer is not among the weights, and evaluation may have other ways and shots than
training.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base, trees
from metarun.blocks import (
    backbone,
    earlier_stages,
    metric_space,
    networks,
    outer_loss,
    pretrained_body,
    prototypes,
    target_kinds,
)
from metarun.options import Similarity
from metarun.ranges import Above


@dataclass(frozen=True)
class Config(Similarity):
    """The mapping, its objective, and how near a query is to a class."""

    query_weight: Annotated[float, Above(0)] = 1.0  # α, the weight of the query's loss beside the support's
    # The mapping before training: random, or none, so that the learner begins as a prototypical network.
    first_mapping: Literal["random", "identity"] = "random"
    pretrained: str | None = None  # name of the earlier stage whose body is the first one; null: a random one
    # Layer normalisation of the mapped prototypes, as in FEAT; the queries have none.
    normalised: bool = False


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions, on the earlier stage `pretrained` if there is one.

    Returns:
      An algorithm whose weights are `features`, the model's without its last layer, `attention`, and `norm` with
      `normalised`. Its outputs are logits [example, way]; its loss metrics are the objective's for the query, and
      `support_loss`.

    Raises:
      ValueError: the family is no classification, or there is no such stage.
    """
    objective = problem.objective
    ways = target_kinds.require_ways(problem, "mapping")
    if config.pretrained is not None:
        earlier_stages.find("pretrained", config.pretrained, earlier)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, attention_key = jax.random.split(key)
        inputs = trees.first(episodes.support.inputs)
        body = pretrained_body.start(config.pretrained, model, body_key, inputs, earlier)
        width = backbone.count_features(model, body, inputs)
        attention = networks.init_attention(attention_key, width, width, width, width)
        if config.first_mapping == "identity":
            attention["result"] = jax.tree.map(jnp.zeros_like, attention["result"])
        trained = {"features": body, "attention": attention}
        if config.normalised:
            trained["norm"] = {base.SCALE: jnp.ones(width), base.OFFSET: jnp.zeros(width)}
        return base.Weights(trained)

    def select_body(weights: base.Weights) -> base.PyTree:
        return weights.trained["features"]

    def place_classes(weights: base.Weights, features, labels) -> Float[Array, "way feature"]:
        means = metric_space.class_means(features, labels, ways)
        moved = means + networks.attend(weights.trained["attention"], 1, means, means, means)
        return normalise(weights.trained["norm"], moved) if config.normalised else moved

    adapt = prototypes.make_adapt(model, select_body, place_classes)
    predict = prototypes.make_predict(model, config)

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        support, query = episode.support, episode.query
        body = select_body(weights)
        features = backbone.embed_support(model, body, support)
        points = place_classes(weights, features, support.targets)
        support_logits = metric_space.similarities(features, points, config)
        support_loss = objective.loss(support_logits, support.targets)
        outputs = predict(prototypes.Learner(body, points, support.inputs), query.inputs)
        query_loss, metrics = outer_loss.judge(objective, outputs, query)
        metrics = metrics | {"support_loss": jax.lax.stop_gradient(support_loss)}
        return support_loss + config.query_weight * query_loss, metrics

    return base.Algorithm(init, loss, adapt, predict)


def normalise(norm: base.PyTree, vectors: Float[Array, "way feature"]) -> Float[Array, "way feature"]:
    """Apply layer normalisation (Ba, Kiros, Hinton 2016, arXiv 1607.06450)."""
    mean, variance = vectors.mean(axis=-1, keepdims=True), vectors.var(axis=-1, keepdims=True)
    scale, offset = (jnp.expand_dims(norm[name], 0) for name in (base.SCALE, base.OFFSET))
    return (vectors - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + offset
