"""Where the vector of a task comes from: an earlier stage's embedding, or an encoder that is trained here."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base, errors, trees
from metarun.algorithms import _conditioning, _features, _graph

LEAST_DEVIATION = 1e-6  # of a number over tasks, as a share of the largest: below it all tasks have the same


class Vectors(NamedTuple):
    """Two functions."""

    init: Callable[
        ..., tuple[base.Weights, int]
    ]  # (key, episodes[task], earlier) -> (weights, size of a vector)
    read: Callable  # (weights, support) -> [embed]
    memory: Callable | None = None  # (weights, episode) -> scalar, a part of the outer loss; None: none


def build(config: Any, model: base.Model, objective: base.Objective, earlier: Mapping | None) -> Vectors:
    """The vectors of the stage `config.embedding`; None: of an encoder of its `width`, `depth` and `embed`.

    Raises:
      ValueError: there is no such stage before this one, or targets that an encoder cannot read, or no kinds of tasks
        for a graph.
      DataError: the edge list of the graph is missing or wrong.
    """
    graph = _graph.build(config.graph, objective, of_tasks=True, name="conditioned")
    vectors = build_plain(config, model, objective, earlier)
    return vectors if graph is None else smoothed(vectors, graph, config.propagation_steps)


def build_plain(
    config: Any, model: base.Model, objective: base.Objective, earlier: Mapping | None
) -> Vectors:
    """The vectors without a graph."""
    if config.embedding is None:
        _features.has_labels(objective)
        return of_encoder(config, model)
    if config.embedding not in (earlier or {}):
        known = ", ".join(earlier or {})
        raise ValueError(
            f"embedding names the stage {config.embedding}, and there is none of that name before this one",
            f"set embedding to one of {known}"
            if known
            else "set embedding: null, or put a stage before this one",
        )
    return of_stage(config.embedding, (earlier or {})[config.embedding])


def of_encoder(config: Any, model: base.Model) -> Vectors:
    """Of a set encoder, trained as "encoder"."""

    def init(key, episodes: base.Episode, earlier):
        sizes = _conditioning.Sizes(config.width, config.depth, config.embed)
        encoder = _conditioning.init_encoder(key, model, trees.first(episodes.support), sizes)
        return base.Weights({"encoder": encoder}), config.embed

    def read(weights: base.Weights, support: base.Examples):
        return _conditioning.encode(weights.trained["encoder"], model, support)

    return Vectors(init, read)


def of_stage(name: str, stage: base.Algorithm) -> Vectors:
    """Of an earlier stage, frozen as "stage", less the mean and by the deviation over the first batch of tasks."""

    def embedding(stage_weights: base.Weights, support: base.Examples):
        learner = stage.adapt(stage_weights, support)
        if not hasattr(learner, "embedding"):
            raise errors.ConfigError(
                f"the stage {name} gives no embedding of a task",
                "algorithm.embedding",
                "name a stage whose algorithm is task_embedding, or set embedding: null",
            )
        return learner.embedding

    def init(key, episodes: base.Episode, earlier):
        found = jax.vmap(embedding, in_axes=(None, 0))(earlier[name], episodes.support)
        frozen = {"stage": earlier[name], "mean": found.mean(axis=0), "deviation": deviations(found)}
        return base.Weights({}, frozen), found.shape[-1]

    def read(weights: base.Weights, support: base.Examples):
        frozen = weights.frozen
        return (embedding(frozen["stage"], support) - frozen["mean"]) / frozen["deviation"]

    return Vectors(init, read)


def deviations(vectors: Float[Array, "task embed"]) -> Float[Array, "embed"]:
    """The deviation of each number over the tasks; the largest of them for a number that all tasks share.

    Such a number may differ in other tasks, and would be huge there in units of its own deviation. Where all numbers
    are shared, as by a single task, they are 1.
    """
    own = vectors.std(axis=0)
    largest = own.max()
    return jnp.where(own > LEAST_DEVIATION * largest, own, jnp.where(largest > 0, largest, 1))


def smoothed(plain: Vectors, graph: _graph.Graph, steps: int) -> Vectors:
    """The plain vectors, moved towards the kinds of tasks that they are like, and what is related to these.

    A kind begins at the mean of its vectors over the first batch of tasks. A task's own kind stays in the graph in
    training, because new tasks are of the same kinds.
    """

    def init(key, episodes: base.Episode, earlier):
        weights, size = plain.init(key, episodes, earlier)
        vectors = jax.vmap(plain.read, in_axes=(None, 0))(weights, episodes.support)
        trained, frozen = _graph.init(graph, steps, vectors, jax.vmap(graph.relations.of)(episodes.facts))
        rest = weights.frozen or {}
        return base.Weights(weights.trained | {"graph": trained}, rest | {"graph": frozen}), size

    def read(weights: base.Weights, support: base.Examples):
        parts = weights.trained["graph"], weights.frozen["graph"]
        return _graph.smooth(graph, *parts, steps, plain.read(weights, support)[None])[0]

    def memory(weights: base.Weights, episode: base.Episode):
        vector, kind = plain.read(weights, episode.support), graph.relations.of(episode.facts)
        return _graph.memory_loss(weights.trained["graph"], vector[None], kind[None])

    return Vectors(init, read, memory)
