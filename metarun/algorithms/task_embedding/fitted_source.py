"""The sources of task vectors that train nothing: they stand on an earlier stage, and are fitted to some tasks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
from jaxtyping import Array, Float

from metarun import base, errors, trees
from metarun.algorithms.task_embedding import long_vectors, probe_scores, solver_network, vector_reduction
from metarun.base import PyTree
from metarun.blocks import outer_loss

if TYPE_CHECKING:
    from metarun.algorithms.task_embedding import Config


class Fit(NamedTuple):
    """What the vectors of the training tasks of the fit are like."""

    mean: Float[Array, "embed"] | None  # None: the stage does not keep it
    deviation: Float[Array, "embed"] | None
    centres: Float[Array, "cluster embed"] | None  # of their clusters; None: there are no clusters


class Learner(NamedTuple):
    """A task as a vector, and what answers its queries."""

    embedding: Float[Array, "embed"]
    cluster: Float[Array, "cluster"] | None  # the membership in each; None without clusters
    solver: PyTree  # the learner of the earlier stage
    fit: Fit  # the same for every task


def build(
    config: "Config", model: base.Model, problem: base.Problem, solver: base.Algorithm
) -> base.Algorithm:
    """Build the four functions on the network of an earlier stage, whose algorithm is `solver`.

    Returns:
      An algorithm that trains nothing. Frozen are the weights of that stage ("solver"), its network ("network"), and
      the fits ("components", "clusters", "statistics", or "probes" and "factors").
    """
    make_source = probe_scores.make_source if config.source == "collaborative" else make_reduced
    compute_vector, fit = make_source(config, model, problem)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs, weights = trees.first(episodes.support.inputs), earlier[config.pretrained]
        refuse_few(config, jax.tree.leaves(episodes.support)[0].shape[0])
        with_head = not solver_network.uses_means(config, problem.spec) and config.source != "prototype"
        network = solver_network.extract_params(config.pretrained, weights, model, inputs, with_head)
        frozen = {"solver": weights, "network": network}
        source_key, cluster_key = jax.random.split(key)
        frozen |= fit(source_key, frozen, episodes.support)
        if not (config.clusters or config.statistics):
            return base.Weights((), frozen)
        vectors = solver_network.map_tasks(lambda support: compute_vector(frozen, support), episodes.support)
        if config.clusters:
            frozen["clusters"] = vector_reduction.fit_clusters(cluster_key, vectors, config.clusters)
        if config.statistics:
            frozen["statistics"] = {"mean": vectors.mean(axis=0), "deviation": vectors.std(axis=0)}
        return base.Weights((), frozen)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        frozen = weights.frozen
        embedding, cluster = compute_vector(frozen, support), None
        if config.clusters:
            hard = config.membership == "hard"
            cluster = vector_reduction.compute_membership(frozen["clusters"], embedding, hard)
        statistics = frozen.get("statistics", {})
        centres = frozen["clusters"].centres if config.clusters else None
        fit = Fit(statistics.get("mean"), statistics.get("deviation"), centres)
        return Learner(embedding, cluster, solver.adapt(frozen["solver"], support), fit)

    def predict(learner: Learner, inputs):
        return solver.predict(learner.solver, inputs)

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict)


def make_reduced(config: "Config", model: base.Model, problem: base.Problem) -> tuple[Callable, Callable]:
    """Make the two functions of a source of long vectors, which PCA makes short.

    Returns:
      compute_vector: (frozen, support) -> [embed]
      fit: (key, frozen, supports [task]) -> more of `frozen`
    """
    compute_long = long_vectors.make_vector(config, model, problem)

    def compute_vector(frozen, support: base.Examples):
        vector = compute_long(frozen["network"], support)
        if config.reduction == "none":
            return vector
        return vector_reduction.project(frozen["components"], vector)

    def fit(key, frozen, supports: base.Examples):
        if config.reduction == "none":
            return {}
        vectors = solver_network.map_tasks(lambda support: compute_long(frozen["network"], support), supports)
        components = vector_reduction.fit_components(
            vectors, config.dimensions, config.variance, config.whiten
        )
        return {"components": components}

    return compute_vector, fit


def refuse_few(config: "Config", tasks: int) -> None:
    """Refuse to fit to fewer training tasks than clusters, probes, or the two that a variance needs.

    Raises:
      ConfigError: there are fewer.
    """
    reduces = config.source != "collaborative" and config.reduction == "pca"
    needs = {
        f"{config.clusters} clusters": config.clusters or 0,
        f"{config.probes} probes": config.probes * (config.source == "collaborative"),
        "principal components": 2 * reduces,
    }
    for name, least in needs.items():
        if tasks < least:
            raise errors.ConfigError(
                f"{name} need at least {least} training tasks, and the stage is fitted to {tasks}",
                "training.tasks_per_step",
                f"set tasks_per_step of the stage to {least} or more, several times that if you can",
            )
