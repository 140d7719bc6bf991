"""Where the vector of a task comes from: an earlier stage's embedding, or an encoder that is trained here."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from metarun import base, errors, trees
from metarun.blocks import earlier_stages, relation_graph, set_encoder, target_kinds
from metarun.options import SetEncoder

if TYPE_CHECKING:
    from metarun.algorithms.conditioned import Config

# A number that deviates less than this over the tasks, as a share of the largest deviation, is the same in all tasks.
LEAST_DEVIATION = 1e-6
HASH = ((16, 0x85EBCA6B), (13, 0xC2B2AE35))  # shifts and factors of MurmurHash3's last step (Appleby 2011)


class Begun(NamedTuple):
    """A source before the first step."""

    weights: base.Weights
    size: int  # of a vector
    # Clusters of the tasks that an earlier stage was fitted to, in the units of the vectors; None: it has none.
    centres: Float[Array, "cluster embed"] | None = None


class VectorSource(NamedTuple):
    """A source of the vectors of tasks."""

    init: Callable[..., Begun]  # (key, episodes [task], earlier) -> Begun
    read: Callable  # (weights, support) -> [embed]
    # (weights, episode) -> scalar, a term of the outer loss; None: there is no such term
    memory_loss: Callable | None = None


def build(
    config: "Config", model: base.Model, problem: base.Problem, earlier: Mapping | None
) -> VectorSource:
    """Return the source that a config of `conditioned` names: an earlier stage or an encoder, with or without a graph.

    Raises:
      ValueError: there is no stage of the name `embedding` before this one, or an encoder cannot read the targets, or
        the family has no kinds of tasks for a graph.
      DataError: the edge list of the graph is missing or wrong.
    """
    graph = relation_graph.build(config.graph, problem, "tasks", "conditioned", config.edges)
    if config.embedding is None:
        target_kinds.refuse_tokens(problem)
        source = make_encoder_source(config, model, problem.spec)
    else:
        remedy = "set embedding: null, or put a stage before this one"
        stage = earlier_stages.find("embedding", config.embedding, earlier, remedy)
        source = make_stage_source(config.embedding, stage)
    if graph is not None:
        source = make_smoothed_source(source, graph, config.propagation_steps)
    return make_shuffled_source(source) if config.vector == "shuffled" else source


def make_encoder_source(config: SetEncoder, model: base.Model, spec: base.Spec) -> VectorSource:
    """Make the source that reads the support by a set encoder, trained as "encoder"."""

    def init(key, episodes: base.Episode, earlier):
        inputs = trees.first(episodes.support.inputs)
        return Begun(
            base.Weights({"encoder": set_encoder.init(config, key, model, inputs, spec)}), config.embed
        )

    def read(weights: base.Weights, support: base.Examples):
        return set_encoder.encode(weights.trained["encoder"], model, support, spec)

    return VectorSource(init, read)


def make_stage_source(name: str, stage: base.Algorithm) -> VectorSource:
    """Make the source of an earlier stage's embedding, less its mean, over its deviation.

    Both are of the training tasks that the stage was fitted to if it keeps them (`statistics: true`), else of the first
    batch of tasks. The stage's weights are frozen as "stage".
    """

    def adapt(stage_weights: base.Weights, support: base.Examples):
        learner = stage.adapt(stage_weights, support)
        if not hasattr(learner, "embedding"):
            raise errors.ConfigError(
                f"the stage {name} gives no embedding of a task",
                "algorithm.embedding",
                "name a stage whose algorithm is task_embedding, or set embedding: null",
            )
        return learner

    def init(key, episodes: base.Episode, earlier):
        learners = jax.vmap(adapt, in_axes=(None, 0))(earlier[name], episodes.support)
        vectors, fit = learners.embedding, trees.first(getattr(learners, "fit", None))
        mean, deviation = vectors.mean(axis=0), measure_deviations(vectors)
        if fit is not None and fit.mean is not None:
            mean, deviation = fit.mean, bound_deviations(fit.deviation)
        centres = None if fit is None or fit.centres is None else (fit.centres - mean[None]) / deviation[None]
        frozen = {"stage": earlier[name], "mean": mean, "deviation": deviation}
        return Begun(base.Weights({}, frozen), vectors.shape[-1], centres)

    def read(weights: base.Weights, support: base.Examples):
        frozen = weights.frozen
        return (adapt(frozen["stage"], support).embedding - frozen["mean"]) / frozen["deviation"]

    return VectorSource(init, read)


def measure_deviations(vectors: Float[Array, "task embed"]) -> Float[Array, "embed"]:
    """Return the deviation of each number over the tasks, or the largest of them for a number that all tasks share.

    Such a number may differ in other tasks, and would be huge there in units of its own deviation. Where all numbers
    are shared, as by a single task, the deviations are 1.
    """
    return bound_deviations(vectors.std(axis=0))


def bound_deviations(deviations: Float[Array, "embed"]) -> Float[Array, "embed"]:
    """Return deviations that can be divided by; see `measure_deviations`."""
    largest = deviations.max()
    is_varied = deviations > LEAST_DEVIATION * largest
    return jnp.where(is_varied, deviations, jnp.where(largest > 0, largest, 1))


def make_smoothed_source(source: VectorSource, graph: relation_graph.Graph, steps: int) -> VectorSource:
    """Make the source that moves another's vectors towards the kinds of tasks that they are like, and their relatives.

    The node of a kind begins at the mean of the kind's vectors over the first batch of tasks. A task's own kind stays
    in the graph in training, because new tasks are of the same kinds.
    """

    def init(key, episodes: base.Episode, earlier):
        begun = source.init(key, episodes, earlier)
        weights = begun.weights
        vectors = jax.vmap(source.read, in_axes=(None, 0))(weights, episodes.support)
        kinds = jax.vmap(graph.relations.locate)(episodes.facts)
        trained, frozen = relation_graph.init(graph, steps, vectors, kinds)
        weights = base.Weights(
            weights.trained | {"graph": trained}, (weights.frozen or {}) | {"graph": frozen}
        )
        return begun._replace(weights=weights)

    def read(weights: base.Weights, support: base.Examples):
        trained, frozen = weights.trained["graph"], weights.frozen["graph"]
        vectors = source.read(weights, support)[None]
        return relation_graph.smooth(graph, trained, frozen, steps, vectors)[0]

    def memory_loss(weights: base.Weights, episode: base.Episode):
        vector, kind = source.read(weights, episode.support), graph.relations.locate(episode.facts)
        return relation_graph.memory_loss(weights.trained["graph"], vector[None], kind[None])

    return VectorSource(init, read, memory_loss)


def make_shuffled_source(source: VectorSource) -> VectorSource:
    """Make the source that gives a task the vector of another one: a control of what the vectors know.

    The other task is one of the first batch, which is frozen as "others". The task's own examples choose it, whatever
    their order, so that a task always has the same vector.
    """

    def init(key, episodes: base.Episode, earlier):
        begun = source.init(key, episodes, earlier)
        frozen = (begun.weights.frozen or {}) | {"others": episodes.support}
        return begun._replace(weights=begun.weights._replace(frozen=frozen))

    def read(weights: base.Weights, support: base.Examples):
        others = weights.frozen["others"]
        place = hash_numbers(support) % jax.tree.leaves(others)[0].shape[0]
        return source.read(weights, jax.tree.map(lambda leaf: leaf[place], others))

    return VectorSource(init, read, source.memory_loss)


def hash_numbers(examples: base.PyTree) -> UInt32[Array, ""]:
    """Return a number that the numbers of a tree decide, whatever their order within a leaf."""
    total = jnp.uint32(0)
    for leaf in jax.tree.leaves(examples):
        bits = jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32)
        for shift, factor in HASH:
            bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
        total += jnp.sum(bits ^ (bits >> 16), dtype=jnp.uint32)
    return total
