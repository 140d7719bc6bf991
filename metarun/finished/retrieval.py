"""How near tasks are to each other as vectors, and whether the nearest ones share a fact."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from metarun.evaluation.statistics import estimate_mean
from metarun.finished.task_vectors import TaskVectors

BINS = 5  # of a fact that is a number: "the same" is the same fifth of the tasks

Distance = Literal["euclidean", "cosine"]


class Retrieval(NamedTuple):
    """Whether the nearest other task shares a fact, for every task."""

    embedding: Bool[np.ndarray, "task"]
    raw: Bool[np.ndarray, "task"]
    random: Bool[np.ndarray, "task"]


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


def match_nearest(vectors: np.ndarray, labels: np.ndarray, distance: str) -> Bool[np.ndarray, "task"]:
    """Return whether the nearest other task has the same label; the first counts among equally near ones."""
    apart = measure_distances(vectors, vectors, distance)
    np.fill_diagonal(apart, np.inf)
    return labels[apart.argmin(axis=1)] == labels


def retrieve(tasks: TaskVectors, distance: str, seed: int = 0) -> dict[str, Retrieval]:
    """Return {fact: whether the nearest task shares it}, for every fact that differs between tasks."""
    random = np.random.default_rng(seed).standard_normal((len(tasks.vectors), max(tasks.vectors.shape[1], 2)))
    retrievals = {}
    for name, values in tasks.facts.items():
        labels = classify_fact(values)
        if len(np.unique(labels)) > 1:
            shares = [
                match_nearest(vectors, labels, distance) for vectors in (tasks.vectors, tasks.raw, random)
            ]
            retrievals[name] = Retrieval(*shares)
    return retrievals


def score_retrieval(tasks: TaskVectors, distance: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return {fact: {"embedding" | "raw" | "random" | "above_raw": {"mean", "ci95"}}}.

    `above_raw` is the paired difference. The intervals take the tasks for independent, which nearest neighbours are not
    quite: two tasks may be each other's.
    """
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, retrieval in retrieve(tasks, distance).items():
        columns = {key: column.astype(np.float64) for key, column in retrieval._asdict().items()}
        columns["above_raw"] = columns["embedding"] - columns["raw"]
        scores[name] = {key: estimate_mean(column)._asdict() for key, column in columns.items()}
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
