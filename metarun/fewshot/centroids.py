"""The nearest class mean of features of length 1, and what it would be without one example or one class.

With f the features of a picture at length 1 (`scaling`), c_k the mean of the n_k pictures of class k, and σ² the
pooled variance within a class, summed over all features,

    score_k(f) = −(‖f − c_k‖² − σ²/n_k).

A mean of few pictures lies off the true one by σ²/n_k on average, so the squared distance is too large by as much. This
matters only between classes of different size: with equal shots the order is that of plain distances. σ² is
unknown if no class has two pictures, and 0 then.

All that is left out here is left out exactly: the values are those of means and variances computed anew.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

AT_ONCE = 1024  # pictures whose distances are computed at once


class Centroids(NamedTuple):
    """The class means of a support, in double precision."""

    means: Float[np.ndarray, "way feature"]
    counts: Int[np.ndarray, "way"]  # pictures of each class, 1 or more
    # ‖f − c‖² of each example of the support to the mean of its own class.
    residues: Float[np.ndarray, "example"]
    labels: Int[np.ndarray, "example"]

    @property
    def spread(self) -> float:
        """σ²: the variance within a class, summed over the features; 0 if it is unknown."""
        return float(_divide(self.residues.sum(), len(self.labels) - len(self.counts)))


def shorten(features: Float[np.ndarray, "example feature"]) -> Float[np.ndarray, "example feature"]:
    """Return features at length 1, float32. Zeros stay zeros."""
    lengths = np.sqrt(np.einsum("ij,ij->i", features, features, dtype=np.float64))
    return (features / np.maximum(lengths, 1e-12)[:, None]).astype(np.float32)


def fit(features: Float[np.ndarray, "example feature"], labels: Int[np.ndarray, "example"]) -> Centroids:
    """Return the class means. Labels go from 0 without gaps."""
    counts = np.bincount(labels)
    sums = np.zeros((len(counts), features.shape[1]))
    np.add.at(sums, labels, features)
    means = sums / counts[:, None]
    residues = np.concatenate(
        [
            np.square(features[start : start + AT_ONCE] - means[labels[start : start + AT_ONCE]]).sum(axis=1)
            for start in range(0, len(labels), AT_ONCE)
        ]
    )
    return Centroids(means, counts, residues, labels)


def measure(
    centroids: Centroids, features: Float[np.ndarray, "example feature"]
) -> Float[np.ndarray, "example way"]:
    """Return ‖f − c_k‖² − σ²/n_k for each picture and class. It may lie below 0."""
    return measure_squares(centroids.means, features) - centroids.spread / centroids.counts


def measure_squares(
    means: Float[np.ndarray, "way feature"], features: Float[np.ndarray, "example feature"]
) -> Float[np.ndarray, "example way"]:
    """Return ‖f − c_k‖² in double precision."""
    own = np.square(means).sum(axis=1)
    parts = [features[start : start + AT_ONCE].astype(float) for start in range(0, len(features), AT_ONCE)]
    squares = [np.square(part).sum(axis=1)[:, None] + own - 2 * part @ means.T for part in parts]
    return np.maximum(np.concatenate(squares), 0) if squares else np.zeros((0, len(means)))


def measure_left_out(
    centroids: Centroids, features: Float[np.ndarray, "example feature"]
) -> Float[np.ndarray, "example way"]:
    """Return what `measure` gives for each example of the support if all is fitted to the others alone.

    The own class of an example that is alone in it has no picture left, and is infinitely far.

    Args:
      features: those that the centroids were fitted to.
    """
    counts, labels, residues = centroids.counts, centroids.labels, centroids.residues
    own = counts[labels]
    with np.errstate(divide="ignore", invalid="ignore"):
        stretch = np.where(own > 1, own / (own - 1.0), np.inf)  # f − c without f is this many times f − c
        loss = np.where(own > 1, stretch * residues, 0.0)
    ways = len(counts) - (own == 1)
    spreads = _divide(residues.sum() - loss, len(labels) - 1 - ways)
    left = measure_squares(centroids.means, features) - spreads[:, None] / counts
    with np.errstate(invalid="ignore", divide="ignore"):
        alone = np.square(stretch) * residues - spreads / np.maximum(own - 1, 1)
    left[np.arange(len(labels)), labels] = np.where(own > 1, alone, np.inf)
    return left


def measure_without_class(
    centroids: Centroids, features: Float[np.ndarray, "example feature"]
) -> Float[np.ndarray, "example"]:
    """Return the smallest of `measure` for each example of the support if its whole class is left out.

    Args:
      features: those that the centroids were fitted to.
    """
    counts, labels = centroids.counts, centroids.labels
    residues = np.bincount(labels, centroids.residues)
    spreads = _divide(residues.sum() - residues, len(labels) - counts - (len(counts) - 1))  # [way]
    left = measure_squares(centroids.means, features) - spreads[labels][:, None] / counts
    left[np.arange(len(labels)), labels] = np.inf
    return left.min(axis=1)


def _divide(sums, freedom):
    """Return a variance: sums over degrees of freedom; 0 without any of them."""
    freedom = np.asarray(freedom)
    return np.where(freedom > 0, np.maximum(sums, 0) / np.maximum(freedom, 1), 0.0)
