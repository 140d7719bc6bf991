"""Knowledge graph: class prototypes smoothed over what is known of related classes, with learned edge weights.

The nodes are the classes of the training split and the concepts above them, related as the task family says (character
to alphabet in Omniglot) or as a user's edge list does; `_graph.py` has the equations. A new class is no node. Its
prototype c, the mean of its support's features as in `protonet`, attends to the nodes that it is like, after these have
exchanged their vectors along the edges, and moves towards them through a learned gate, c' = c + g ∘ (p − c). A query
belongs to the nearest c'. With `graph: none` this is `protonet`.

In training the classes of the episode are taken out of the graph, vector and edges, because a new class will not be in
it: else each would learn to find itself. The loss is that of the query, plus `memory_weight` times the mean squared
distance of each class of the episode from its node, in units of the spread of the nodes: so a node is its class's mean
feature, kept up to date. Nodes begin at the class means over the first step's episodes (`tasks_per_step` of them).

Related: Liu, Zhou, Long, Jiang, Zhang 2019 (gated propagation, arXiv 1909.05024), whose prototypes of classes and their
parents exchange messages by attention, gated against their own; Chen, Chen, Hui, Wu, Li, Lin 2020 (KGTN, 1911.09579),
where classifier weights of known and new classes do, on a given graph; Yao et al. 2020 (ARML, 2001.00745), where the
prototypes of a task attend to a graph that all tasks share. Differences: in the first two a new class has its place in
the graph, and here its edges are found by similarity alone, because a support does not name its classes; the first
refreshes its memory of known classes at intervals, and here it is learned; KGTN's and ARML's messages pass gated
recurrent units or graph convolutions, and here they are means, so that a vector stays in the space of the features.

With `pretrained` the features are those of an earlier stage and fixed: nodes and graph are trained, and nothing else.
Turned copies of a character are other classes, related by their turned alphabet; only the copy in an episode is hidden.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base, trees
from metarun.algorithms import _features, _graph, _prototypes, _transfer
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config:
    """The graph, the features, and how far a query is from a class."""

    graph: str = "family"  # family: its own relations; none; or the path of a CSV file of edges, a,b[,weight]
    propagation_steps: Annotated[int, AtLeast(0)] = 2  # along the edges, before a class attends to the nodes
    memory_weight: Annotated[float, AtLeast(0)] = 1.0  # of the nodes' distance from their classes in the loss
    pretrained: str | None = None  # name of the earlier stage with the features; null: they are trained here
    distance: Literal["euclidean", "cosine"] = "euclidean"  # of features; euclidean is squared
    scale: Annotated[float, Above(0)] | None = (
        None  # factor of the logits; null: 1 for euclidean, 10 for cosine
    )

    def __post_init__(self):
        if self.graph not in ("family", "none"):  # the run's own config then names the same file anywhere
            object.__setattr__(self, "graph", str(Path(self.graph).expanduser().absolute()))


class Learner(NamedTuple):
    """The features, the smoothed classes in their space, and the inputs that normalise the queries."""

    params: base.PyTree
    prototypes: Float[Array, "way feature"]
    reference: base.PyTree


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions, on the earlier stage `pretrained` if there is one.

    Returns:
      An algorithm whose weights are "body", the model's without its last layer, frozen where it is pretrained, and
      "graph", whose edges are frozen and the rest trained; whose outputs are logits [example, way]; and whose loss
      metrics are the objective's of the query, and `memory_loss`. Its init raises ConfigError where the earlier stage
      has another model.

    Raises:
      ValueError: the family is no classification, or does not relate its classes; or there is no such stage.
      DataError: the edge list is missing or wrong.
    """
    ways = _prototypes.ways_of(objective, "knowledge_graph")
    graph = _graph.build(config.graph, objective, of_tasks=False, name="knowledge_graph")
    if config.pretrained is not None:
        _transfer.refuse_missing(config.pretrained, earlier)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs = trees.first(episodes.support.inputs)
        if config.pretrained is None:
            body = _features.init_body(model, key, inputs)
        else:
            body = _transfer.body_of(config.pretrained, earlier[config.pretrained], model, inputs)
        trained, frozen = ({"body": body}, {}) if config.pretrained is None else ({}, {"body": body})
        if graph is not None:
            vectors = jax.lax.map(lambda parts: known_means(*embed_both(body, *parts), *parts), episodes[:2])
            places = jax.vmap(graph.relations.of)(episodes.facts)
            trained["graph"], frozen["graph"] = _graph.init(
                graph, config.propagation_steps, vectors.reshape(-1, vectors.shape[-1]), places.reshape(-1)
            )
        return base.Weights(trained, frozen)

    def embed_both(body, support: base.Examples, query: base.Examples):
        return tuple(model.embed(body, part.inputs, reference=support.inputs) for part in (support, query))

    def known_means(
        shown, asked, support: base.Examples, query: base.Examples
    ) -> Float[Array, "way feature"]:
        """The mean feature of each class over support and query."""
        labels = jnp.concatenate([support.targets, query.targets])
        return _prototypes.class_means(jnp.concatenate([shown, asked]), labels, ways)

    def smoothed(weights: base.Weights, features, labels, hidden=None) -> Float[Array, "way feature"]:
        prototypes = _prototypes.class_means(features, labels, ways)
        if graph is None:
            return prototypes
        trained, frozen = weights.trained["graph"], weights.frozen["graph"]
        return _graph.smooth(graph, trained, frozen, config.propagation_steps, prototypes, hidden)

    def logits(features, prototypes):
        return _prototypes.similarities(features, prototypes, config.distance, config.scale)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        body = body_of(weights)
        features = model.embed(body, support.inputs, reference=support.inputs)
        return Learner(body, smoothed(weights, features, support.targets), support.inputs)

    def predict(learner: Learner, inputs):
        return logits(model.embed(learner.params, inputs, reference=learner.reference), learner.prototypes)

    def loss(weights: base.Weights, episode: base.Episode, key):
        support, query, facts = episode
        shown, asked = embed_both(body_of(weights), support, query)
        places = None if graph is None else graph.relations.of(facts)
        outputs = logits(asked, smoothed(weights, shown, support.targets, places))
        error = objective.loss(outputs, query.targets)
        metrics = objective.training_metrics(jax.lax.stop_gradient(outputs), query.targets)
        if places is None:
            return error, metrics
        memory = _graph.memory_loss(
            weights.trained["graph"], known_means(shown, asked, support, query), places
        )
        metrics |= {"memory_loss": jax.lax.stop_gradient(memory)}
        return error + config.memory_weight * memory, metrics

    return base.Algorithm(init, loss, adapt, predict)


def body_of(weights: base.Weights) -> base.PyTree:
    """The parameters of the features, trained or frozen."""
    part = weights.trained if "body" in weights.trained else weights.frozen
    return part["body"]
