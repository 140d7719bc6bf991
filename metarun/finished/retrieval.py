"""How near tasks are to each other as vectors, and whether the nearest ones share a fact.

Query and gallery are kept apart: two tasks that share a class are no neighbours. Else a task finds its fact, such as
the alphabet, by a character that it has in common with another task, and the score says little about the vectors. Tasks
for which no task without a shared class has the same fact are no queries. Where this leaves no query, because the fact
says which classes a task has, all pairs count, and the scores say so.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from metarun.evaluation.statistics import estimate_mean
from metarun.finished.task_vectors import TaskVectors

BINS = 5  # of a fact that is a number: "the same" is the same fifth of the tasks

Distance = Literal["euclidean", "cosine"]


class Retrieval(NamedTuple):
    """Whether the nearest other task shares a fact, for every task that is a query."""

    embedding: Bool[np.ndarray, "query"]
    raw: Bool[np.ndarray, "query"]
    random: Bool[np.ndarray, "query"]
    apart: bool  # whether tasks that share a class were left out of each other's gallery


def classify_fact(values: np.ndarray) -> Int[np.ndarray, "task"]:
    """Return a fact as classes: whole numbers as they are, other numbers by the fifth of the tasks they fall in."""
    if values.dtype.kind in "iub":
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def measure_distances(vectors: np.ndarray, others: np.ndarray, distance: str) -> np.ndarray:
    """Return [task, other]: Euclidean distances, or 1 − cosine. In float64: near tasks differ in their last digits."""
    left, right = vectors.astype(np.float64), others.astype(np.float64)
    if distance == "cosine":
        left, right = (
            rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300) for rows in (left, right)
        )
        return 1 - left @ right.T
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None] - 2 * left @ right.T
    return np.sqrt(np.maximum(squares, 0))


def match_nearest(
    vectors: np.ndarray, labels: np.ndarray, distance: str, barred: np.ndarray | None = None
) -> Bool[np.ndarray, "task"]:
    """Return whether the nearest other task has the same label; the first counts among equally near ones.

    Args:
      barred: [task, other], which others are no neighbours of a task; None: all others may be.
    """
    apart = measure_distances(vectors, vectors, distance)
    np.fill_diagonal(apart, np.inf)
    if barred is not None:
        apart[barred] = np.inf
    return labels[apart.argmin(axis=1)] == labels


def find_shared(classes: Int[np.ndarray, "task way"]) -> Bool[np.ndarray, "task other"]:
    """Return which tasks have a class in common."""
    names, places = np.unique(classes, return_inverse=True)
    holds = np.zeros((len(classes), len(names)), np.float32)
    np.put_along_axis(holds, places.reshape(classes.shape), 1.0, axis=1)
    return holds @ holds.T > 0


def choose_queries(
    labels: Int[np.ndarray, "task"], shared: Bool[np.ndarray, "task other"]
) -> Bool[np.ndarray, "task"]:
    """Return the tasks for which a task without a shared class has the same label."""
    right = (labels[:, None] == labels[None]) & ~shared
    np.fill_diagonal(right, False)
    return right.any(axis=1)


def retrieve(tasks: TaskVectors, distance: str, seed: int = 0) -> dict[str, Retrieval]:
    """Return {fact: whether the nearest task shares it}, for every fact that differs between tasks."""
    shared = (
        np.zeros((len(tasks.vectors),) * 2, bool) if tasks.classes is None else find_shared(tasks.classes)
    )
    random = np.random.default_rng(seed).standard_normal((len(tasks.vectors), max(tasks.vectors.shape[1], 2)))
    retrievals = {}
    for name, values in tasks.facts.items():
        labels = classify_fact(values)
        if len(np.unique(labels)) < 2:
            continue
        queries = choose_queries(labels, shared)
        is_apart = tasks.classes is not None and bool(queries.any())
        barred, queries = (shared, queries) if is_apart else (None, np.ones(len(labels), bool))
        embedding, raw, chance = (
            match_nearest(vectors, labels, distance, barred)[queries]
            for vectors in (tasks.vectors, tasks.raw, random)
        )
        retrievals[name] = Retrieval(embedding, raw, chance, is_apart)
    return retrievals


def score_retrieval(tasks: TaskVectors, distance: str) -> dict[str, dict[str, Any]]:
    """Return {fact: {"embedding" | "raw" | "random" | "above_raw": {"mean", "ci95"}, "queries", "apart"}}.

    `above_raw` is the paired difference, `queries` how many tasks were asked for, and `apart` whether tasks that share
    a class were no neighbours. The intervals take the tasks for independent, which nearest neighbours are not
    quite: two tasks may be each other's.
    """
    scores: dict[str, dict[str, Any]] = {}
    for name, retrieval in retrieve(tasks, distance).items():
        columns = {key: getattr(retrieval, key).astype(np.float64) for key in ("embedding", "raw", "random")}
        columns["above_raw"] = columns["embedding"] - columns["raw"]
        scores[name] = {key: estimate_mean(column)._asdict() for key, column in columns.items()}
        scores[name] |= {"queries": len(retrieval.embedding), "apart": retrieval.apart}
    return scores


def measure_similarities(tasks: TaskVectors) -> Float[np.ndarray, "task other"]:
    """Return the cosine of the vectors of every two tasks, in [−1, 1]."""
    return (1 - measure_distances(tasks.vectors, tasks.vectors, "cosine")).astype(np.float32)


def find_nearest(
    tasks: TaskVectors, vector: Float[np.ndarray, "embed"], count: int, distance: str
) -> list[tuple[int, float]]:
    """Return (task, distance) for the known tasks nearest to a vector, the nearest first."""
    apart = measure_distances(vector[None], tasks.vectors, distance)[0]
    return [(int(index), float(apart[index])) for index in np.argsort(apart, kind="stable")[:count]]
