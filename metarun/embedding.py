"""Looking at tasks: the vectors that a stage gives of many tasks, and how well the nearest of them share a fact.

Everything here is on the frozen list of episodes of a split, as in evaluation. Prints and writes nothing.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from metarun import base, errors, evaluation, opening
from metarun.base import PyTree

BINS = 5  # of a fact that is a number: "the same" is the same fifth of the tasks
AT_ONCE = 32  # tasks that are embedded in parallel
PERPLEXITY = 30.0  # of t-SNE: about how many neighbours a task has (van der Maaten and Hinton 2008)

Distance = Literal["euclidean", "cosine"]


class Tasks(NamedTuple):
    """Many tasks as vectors, with what their sampler knows of them."""

    vectors: Float[np.ndarray, "task embed"]
    clusters: Float[np.ndarray, "task cluster"]  # memberships; no columns where there are no clusters
    raw: Float[np.ndarray, "task feature"]  # the support itself as a vector: the baseline
    facts: dict[str, np.ndarray]  # [task]: one number a task


class EmbeddedRun(NamedTuple):
    """One stage of a run that embeds tasks."""

    path: Path
    stage: str
    step: int
    split: str
    tasks: Tasks
    names: dict[str, tuple[str, ...]]  # of the values of a fact, where they have names


class Retrieval(NamedTuple):
    """Whether the nearest other task shares a fact, for every task."""

    embedding: Bool[np.ndarray, "task"]
    raw: Bool[np.ndarray, "task"]
    random: Bool[np.ndarray, "task"]


def embed(
    path: Path,
    *,
    stage: str | None,
    split: str | None,
    count: int,
    overrides: list[str] | tuple[str, ...] = (),
) -> EmbeddedRun:
    """The vectors of the first `count` frozen tasks of a split. Writes nothing to the run.

    Args:
      path: a run directory, or RUN/checkpoints/<stage>/<step>.
      stage: None: the last one, or that of the checkpoint.
      split: None: the one that the run evaluates.
      overrides: `key=value` of the evaluation and accelerator sections.

    Raises:
      MetarunError: what is wrong with the run or with the choice, and what to do.
    """
    opened = opening.open_stage(path, stage=stage, split=split, overrides=overrides)
    algorithm, weights, family, data = opened.algorithm, opened.weights, opened.family, opened.data
    refuse_without_embedding(algorithm, weights, family, data, opened.stage)
    wanted = opened.evaluation
    keys = evaluation.episode_keys(wanted.seed, wanted.split, count)
    tasks = embed_tasks(algorithm, weights, family, data, keys)
    named = with_groups(tasks, family, data, keys)
    return EmbeddedRun(opened.path, opened.stage, opened.step, wanted.split, *named)


def refuse_without_embedding(
    algorithm: base.Algorithm, weights: base.Weights, family: base.TaskFamily, data: PyTree, stage: str
) -> None:
    """Raise UsageError where a stage's learner holds no vector of its task. Computes nothing."""

    def adapt(weights, data):
        return algorithm.adapt(weights, family.sample(data, jax.random.key(0)).support)

    if not hasattr(jax.eval_shape(adapt, weights, data), "embedding"):
        raise errors.UsageError(
            f"the stage {stage} gives no vector of a task",
            f"stage {stage}",
            "name a stage whose algorithm is task_embedding, with --stage",
        )


def embed_tasks(
    algorithm: base.Algorithm, weights: base.Weights, family: base.TaskFamily, data: PyTree, keys
) -> Tasks:
    """The tasks of these keys, adapted to in one compiled program."""

    def one_task(weights, data, key):
        episode = family.sample(data, key)
        learner = algorithm.adapt(weights, episode.support)
        cluster = getattr(learner, "cluster", None)
        return learner.embedding, cluster, raw_vector(episode.support), episode.facts

    @jax.jit
    def all_tasks(weights, data, keys):
        return jax.lax.map(lambda key: one_task(weights, data, key), keys, batch_size=AT_ONCE)

    vectors, clusters, raw, facts = jax.device_get(all_tasks(weights, data, keys))
    if not np.isfinite(vectors).all():
        raise errors.DivergedError(
            "vectors of tasks have numbers that are not finite",
            "the learner's embedding",
            "take fewer or smaller inner steps in the stage that embeds",
        )
    known = np.zeros((len(vectors), 0), np.float32) if clusters is None else clusters
    return Tasks(vectors, known, raw, scalar_facts(facts))


def raw_vector(support: base.Examples):
    """The support without any network: the mean of the inputs of classes; of numbers the examples side by side.

    Examples with numbers are sorted by the first number of their inputs, because their order means nothing. Sentences
    are averaged as the numbers of their tokens, for want of anything better.
    """
    inputs = jax.tree.leaves(support.inputs)[0]
    targets = jax.tree.leaves(support.targets)[0]
    flat = inputs.reshape(inputs.shape[0], -1).astype(jnp.float32)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return flat.mean(axis=0)
    pairs = jnp.concatenate([flat, targets.reshape(targets.shape[0], -1)], axis=1)
    return pairs[jnp.argsort(pairs[:, 0])].reshape(-1)


def scalar_facts(facts: PyTree) -> dict[str, np.ndarray]:
    """The facts that are one number a task, and those of every way that all ways of every task share."""
    found = {}
    for name, values in (facts if isinstance(facts, dict) else {}).items():
        array = np.asarray(values)
        flat = array.reshape(len(array), -1)
        if flat.shape[1] and (flat == flat[:, :1]).all():
            found[name] = flat[:, 0]
    return found


def with_groups(
    tasks: Tasks, family: base.TaskFamily, data: PyTree, keys
) -> tuple[Tasks, dict[str, tuple[str, ...]]]:
    """The tasks, and {fact: names} of the fact that tells the family's groups: `group` where no fact does."""
    groups = evaluation.episode_groups(family, data, keys)
    if family.groups is None or groups is None:
        return tasks, {}
    told = [name for name, values in tasks.facts.items() if np.array_equal(values, groups)] or ["group"]
    return tasks._replace(facts=tasks.facts | {told[0]: groups}), {told[0]: family.groups.names}


def labels_of(values: np.ndarray) -> Int[np.ndarray, "task"]:
    """A fact as classes: whole numbers as they are, other numbers by the fifth of the tasks that they fall in."""
    if values.dtype.kind in "iub":
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def distances(vectors: np.ndarray, others: np.ndarray, distance: str) -> np.ndarray:
    """[task, other]: Euclidean distances, or 1 − cosine. In float64: near tasks differ in their last digits."""
    left, right = vectors.astype(np.float64), others.astype(np.float64)
    if distance == "cosine":
        left, right = (
            part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-300) for part in (left, right)
        )
        return 1 - left @ right.T
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None] - 2 * left @ right.T
    return np.sqrt(np.maximum(squares, 0))


def nearest_shares(vectors: np.ndarray, labels: np.ndarray, distance: str) -> Bool[np.ndarray, "task"]:
    """Leave-one-out: whether the nearest other task has the same label; of equally near ones the first counts."""
    apart = distances(vectors, vectors, distance)
    np.fill_diagonal(apart, np.inf)
    return labels[apart.argmin(axis=1)] == labels


def retrieve(tasks: Tasks, distance: str, seed: int = 0) -> dict[str, Retrieval]:
    """{fact: whether the nearest task shares it}, of every fact that does differ between tasks."""
    random = np.random.default_rng(seed).standard_normal((len(tasks.vectors), max(tasks.vectors.shape[1], 2)))
    found = {}
    for name, values in tasks.facts.items():
        labels = labels_of(values)
        if len(np.unique(labels)) > 1:
            shares = [
                nearest_shares(vectors, labels, distance) for vectors in (tasks.vectors, tasks.raw, random)
            ]
            found[name] = Retrieval(*shares)
    return found


def scores(tasks: Tasks, distance: str) -> dict[str, dict[str, dict[str, float]]]:
    """{fact: {"embedding" | "raw" | "random" | "above_raw": {"mean", "ci95"}}}; above_raw is the paired difference.

    The intervals take the tasks for independent. Nearest neighbours are not quite: two tasks may be each other's.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, retrieval in retrieve(tasks, distance).items():
        columns = {key: column.astype(np.float64) for key, column in retrieval._asdict().items()}
        columns["above_raw"] = columns["embedding"] - columns["raw"]
        found[name] = {key: evaluation.interval(column)._asdict() for key, column in columns.items()}
    return found


def similarities(tasks: Tasks) -> Float[np.ndarray, "task other"]:
    """The cosine of the vectors of every two tasks, in [−1, 1]."""
    return (1 - distances(tasks.vectors, tasks.vectors, "cosine")).astype(np.float32)


def in_plane(vectors: np.ndarray) -> Float[np.ndarray, "task 2"]:
    """The first two principal components."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)[None]
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    plane = (left * lengths[None])[:, :2]
    return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))


def by_tsne(vectors: np.ndarray, seed: int = 0) -> Float[np.ndarray, "task 2"]:
    """Two dimensions that keep neighbours (t-SNE, van der Maaten and Hinton 2008), by scikit-learn.

    Raises:
      UsageError: scikit-learn is not installed, there are too few tasks, or all have the same vector.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise errors.UsageError(
            "t-SNE needs scikit-learn, which is not installed", "--tsne", "pip install 'metarun[embed]'"
        ) from error
    if len(vectors) < 10:
        raise errors.UsageError(
            f"{len(vectors)} tasks are too few for t-SNE", "--tsne", "give --tasks 10 or more"
        )
    if (vectors == vectors[:1]).all():
        raise errors.UsageError("all tasks have the same vector", "--tsne", "leave --tsne out")
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    method: Any = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    missing = max(0, 2 - vectors.shape[1])  # it begins at two principal components
    return np.asarray(method.fit_transform(np.pad(vectors.astype(np.float64), ((0, 0), (0, missing)))))


def nearest(
    tasks: Tasks, vector: Float[np.ndarray, "embed"], count: int, distance: str
) -> list[tuple[int, float]]:
    """(task, distance) of the known tasks nearest to a vector, the nearest first."""
    apart = distances(vector[None], tasks.vectors, distance)[0]
    return [(int(index), float(apart[index])) for index in np.argsort(apart, kind="stable")[:count]]
