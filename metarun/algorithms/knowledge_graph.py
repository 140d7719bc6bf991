"""Knowledge graph: class prototypes smoothed over what is known of related classes, with learned edge weights.

The nodes are the classes of the training split and the concepts above them, related as the task family says (character
to alphabet in Omniglot) or as a user's edge list does; `metarun/blocks/relation_graph.py` has the equations. A new
class is no node. Its prototype c is the mean of its support's features, as in `protonet`. First the nodes exchange
their vectors along the edges; then c attends to the nodes that it resembles and moves towards them through a learned
gate, c' = c + g ∘ (p − c). A query belongs to the nearest c'. With `graph: none` this is `protonet`.

In training the classes of the episode are taken out of the graph, vector and edges, because a new class will not be in
it; otherwise each class would learn to find itself. The loss is that of the query, plus `memory_weight` times the mean
squared distance between each class of the episode and its node, in units of the spread of the nodes. This keeps a node
at its class's mean feature. Nodes begin at the class means over the first step's episodes (`tasks_per_step` of them).

Related: Liu, Zhou, Long, Jiang, Zhang 2019 (gated propagation, arXiv 1909.05024), where prototypes of classes and their
parents exchange messages by attention, gated against their own; Chen, Chen, Hui, Wu, Li, Lin 2020 (KGTN, 1911.09579),
where classifier weights of known and new classes do this on a graph that is given; Yao et al. 2020 (ARML, 2001.00745),
where the prototypes of a task attend to a graph that all tasks share. Differences: in the first two a new class has its
place in the graph, and here its edges are found by similarity, beside the one that it may bring. The first refreshes
its memory of known classes at intervals, and here it is learned. The messages of KGTN and ARML pass gated recurrent
units or graph convolutions, and here they are means, so that a vector stays in the space of features.

With `tells_alphabet` of Omniglot a support says which concept each of its classes belongs to, in training and in a new
task: the class brings an edge. Controls are `edges: shuffled`, in which the known classes have changed places, and
`propagation_steps: 0`, in which concepts have no vectors and an edge to one says nothing.

With `pretrained` the features come from an earlier stage and are fixed; only the graph and its nodes are trained.
Turned copies of a character are other classes, related by their turned alphabet; only the copy in an episode is hidden.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metarun import base, trees
from metarun.blocks import (
    backbone,
    earlier_stages,
    metric_space,
    outer_loss,
    pretrained_body,
    prototypes,
    related_inputs,
    relation_graph,
    target_kinds,
)
from metarun.options import RelationGraph, Similarity


@dataclass(frozen=True)
class Config(RelationGraph, Similarity):
    """The graph, the features, and how near a query is to a class."""

    # The graph: family, the relations that the task family knows; none; or the path of a CSV file of edges,
    # a,b[,weight].
    graph: str = "family"
    # Name of the earlier stage with the features; null: the features are trained here.
    pretrained: str | None = None


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions, on the earlier stage `pretrained` if there is one.

    Returns:
      An algorithm whose weights are "body", the model's without its last layer, frozen if it is pretrained, and
      "graph", whose edges are frozen and the rest trained. Its outputs are logits [example, way]; its loss metrics are
      the objective's for the query, and `memory_loss`. Its init raises ConfigError if the earlier stage has another
      model.

    Raises:
      ValueError: the family is no classification, or does not relate its classes; or there is no such stage.
      DataError: the edge list is missing or wrong.
    """
    ways = target_kinds.require_ways(problem, "knowledge_graph")
    graph = relation_graph.build(config.graph, problem, "classes", "knowledge_graph", config.edges)
    if config.pretrained is not None:
        earlier_stages.find("pretrained", config.pretrained, earlier)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        told = isinstance(episodes.support.inputs, base.Related)
        episodes = episodes._replace(support=drop_concepts(episodes.support))
        inputs = trees.first(episodes.support.inputs)
        if config.pretrained is None:
            body = backbone.init_body(model, key, inputs)
            trained, frozen = {"body": body}, {}
        else:
            body = pretrained_body.extract_body(config.pretrained, earlier[config.pretrained], model, inputs)
            trained, frozen = {}, {"body": body}
        if graph is not None:
            vectors, places = average_episodes(model, body, graph, ways, episodes)
            trained["graph"], frozen["graph"] = relation_graph.init(
                graph, config.propagation_steps, vectors, places, told
            )
        return base.Weights(trained, frozen)

    def place_classes(
        weights: base.Weights, features, support: base.Examples, hidden=None
    ) -> Float[Array, "way feature"]:
        means = metric_space.class_means(features, support.targets, ways)
        if graph is None:
            return means
        trained, frozen = weights.trained["graph"], weights.frozen["graph"]
        told = find_concepts(support, ways) if "told" in trained else None
        return relation_graph.smooth(graph, trained, frozen, config.propagation_steps, means, hidden, told)

    def adapt(weights: base.Weights, support: base.Examples) -> prototypes.Learner:
        body, plain = select_body(weights), drop_concepts(support)
        features = backbone.embed_support(model, body, plain)
        return prototypes.Learner(body, place_classes(weights, features, support), plain.inputs)

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        support, query, facts = episode
        told, support = support, drop_concepts(support)
        features = embed_task(model, select_body(weights), support, query)
        places = None if graph is None else graph.relations.locate(facts)
        points = place_classes(weights, features[0], told, places)
        outputs = metric_space.similarities(features[1], points, config)
        query_loss, metrics = outer_loss.judge(problem.objective, outputs, query)
        if places is None:
            return query_loss, metrics
        means = average_classes(features, ways, support, query)
        memory_loss = relation_graph.memory_loss(weights.trained["graph"], means, places)
        metrics = metrics | {"memory_loss": jax.lax.stop_gradient(memory_loss)}
        return query_loss + config.memory_weight * memory_loss, metrics

    return base.Algorithm(init, loss, adapt, prototypes.make_predict(model, config))


def drop_concepts(support: base.Examples) -> base.Examples:
    """Return a support with plain inputs."""
    return support._replace(inputs=related_inputs.drop_concepts(support.inputs))


def find_concepts(support: base.Examples, ways: int) -> Int[Array, "{ways}"]:
    """Return the concept that the support says of each class, as a place in the names of the relations; -1: none."""
    concepts = jnp.full(ways, -1, jnp.int32)
    if not isinstance(support.inputs, base.Related):
        return concepts
    return concepts.at[support.targets].max(support.inputs.concepts)


def select_body(weights: base.Weights) -> base.PyTree:
    """Return the parameters of the features, trained or frozen."""
    return weights.trained["body"] if "body" in weights.trained else weights.frozen["body"]


def embed_task(model: base.Model, body: base.PyTree, support: base.Examples, query: base.Examples):
    """Return the features of support and query, [example, feature] each."""
    return tuple(
        model.embed(body, examples.inputs, reference=support.inputs) for examples in (support, query)
    )


def average_episodes(
    model: base.Model, body: base.PyTree, graph: relation_graph.Graph, ways: int, episodes: base.Episode
) -> tuple[Float[Array, "class feature"], Int[Array, "class"]]:
    """Return the mean feature of each class of the first two episodes, and its place among the nodes.

    Args:
      episodes: [task], with plain inputs.
    """
    means = jax.lax.map(
        lambda task: average_classes(embed_task(model, body, *task), ways, *task), episodes[:2]
    )
    places = jax.vmap(graph.relations.locate)(episodes.facts)
    return means.reshape(-1, means.shape[-1]), places.reshape(-1)


def average_classes(
    features, ways: int, support: base.Examples, query: base.Examples
) -> Float[Array, "{ways} feature"]:
    """Return the mean feature of each class over support and query."""
    labels = jnp.concatenate([support.targets, query.targets])
    return metric_space.class_means(jnp.concatenate(features), labels, ways)
