"""The distance to the nearest class mean above which a picture is taken for one of no class of the support.

Two kinds of distances say where it lies (see `centroids`):

    known     of each example of the support to the nearest mean, with the example itself left out
    unknown   of each example to the nearest mean of the other classes: its own class is left out whole

The threshold t has the smallest mean of the two errors, P(known > t) and P(unknown ≤ t). Both are counted on the
distances that have chosen t. So the error to expect is told apart: the examples of a class are judged by the
threshold that all other classes choose (leave-one-class-out). It holds for unknown pictures that differ from the
support's classes as these differ from each other; those that differ less are missed more often.

The scale of the features is computed anew without what is left out, because a mean that a class is a part of moves the
class away from the others. A large support does without this, where it no longer matters: beyond MOST_OPERATIONS for
single examples, and beyond MOST_CLASSES for classes.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from metarun.fewshot import centroids, scaling

GROUPS = 50  # of classes that are judged together at most, so that a thousand classes take no longer
MOST_OPERATIONS = 1e8  # examples² · features
MOST_CLASSES = 50
# Expected error from which on nothing is called unknown: guessing has 0.5, and chance alone may reach 0.44.
USELESS = 0.4


class Threshold(NamedTuple):
    """Where unknown pictures begin."""

    distance: float  # squared distance to the nearest class mean; see `centroids.measure`
    known_refused: float  # share of known examples beyond it
    unknown_taken: float  # share of unknown examples within it
    expected_error: float  # mean of the two shares, for classes that have not chosen it
    known: int  # examples that were left out alone
    unknown: int  # examples whose class was left out

    @property
    def is_useful(self) -> bool:
        """Whether it tells unknown pictures from known ones better than guessing does."""
        return self.expected_error < USELESS

    def describe(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return self._asdict()


def find_threshold(
    rows: Float[np.ndarray, "example feature"], labels: Int[np.ndarray, "example"]
) -> Threshold | None:
    """Return the threshold of a support. None: no two classes have two examples, so nothing can judge it.

    Args:
      rows: features as the network gives them; `scaling` is a part of this.
      labels: from 0 without gaps.
    """
    counts = np.bincount(labels)
    has_company, ways = counts[labels] > 1, len(counts)
    if not has_company.any() or ways < 2:
        return None
    known, unknown = measure_known(rows, labels), measure_unknown(rows, labels)
    chosen = choose(known[has_company], unknown)
    groups = np.arange(ways) % min(ways, GROUPS)
    judged = [
        judge_group(groups[labels] == group, has_company, known, unknown) for group in np.unique(groups)
    ]
    errors = [error for error in judged if error is not None]
    if not errors:
        return None
    refused, taken = measure_errors(chosen, known[has_company], unknown)
    return Threshold(chosen, refused, taken, float(np.mean(errors)), int(has_company.sum()), len(unknown))


def measure_known(
    rows: Float[np.ndarray, "example feature"], labels: Int[np.ndarray, "example"]
) -> Float[np.ndarray, "example"]:
    """Return the distance of each example to the nearest mean without it; of one alone in its class to any other."""
    count = len(labels)
    if count**2 * rows.shape[1] > MOST_OPERATIONS:
        scaled = scaling.scale(rows, count)
        return centroids.measure_left_out(centroids.fit(scaled, labels), scaled).min(axis=1)
    return np.array([measure_to_others(rows, labels, np.arange(count) == place)[0] for place in range(count)])


def measure_unknown(
    rows: Float[np.ndarray, "example feature"], labels: Int[np.ndarray, "example"]
) -> Float[np.ndarray, "example"]:
    """Return the distance of each example to the nearest mean of the other classes."""
    ways = int(labels.max()) + 1
    if ways > MOST_CLASSES:
        scaled = scaling.scale(rows, len(labels))
        return centroids.measure_without_class(centroids.fit(scaled, labels), scaled)
    distances = np.zeros(len(labels))
    for way in range(ways):
        distances[labels == way] = measure_to_others(rows, labels, labels == way)
    return distances


def measure_to_others(rows: np.ndarray, labels: np.ndarray, is_left_out: np.ndarray) -> np.ndarray:
    """Return the distance of what is left out to the nearest mean of the others, on the scale of the others."""
    others, count = ~is_left_out, int((~is_left_out).sum())
    scaled = scaling.scale(np.concatenate([rows[others], rows[is_left_out]]), count)
    present = np.unique(labels[others], return_inverse=True)[1]
    return centroids.measure(centroids.fit(scaled[:count], present), scaled[count:]).min(axis=1)


def judge_group(group: np.ndarray, has_company: np.ndarray, known: np.ndarray, unknown: np.ndarray):
    """Return the mean error on the examples of a group of classes, by the others' threshold; None: not known."""
    own, others = group & has_company, ~group & has_company
    if not own.any() or not others.any():
        return None
    threshold = choose(known[others], unknown[~group])
    return float(np.mean(measure_errors(threshold, known[own], unknown[group])))


def choose(known: Float[np.ndarray, "example"], unknown: Float[np.ndarray, "other"]) -> float:
    """Return the distance with the smallest mean of the two errors, in the middle of the gap where it lies.

    Among equally good gaps it is the widest.
    """
    values = np.unique(np.concatenate([known, unknown]))
    if len(values) == 1:
        return float(values[0])
    refused = 1 - np.searchsorted(np.sort(known), values, side="right") / len(known)
    taken = np.searchsorted(np.sort(unknown), values, side="right") / len(unknown)
    errors = np.round((refused + taken)[:-1], 12)
    gaps = np.diff(values)
    best = max(np.flatnonzero(errors == errors.min()), key=lambda place: gaps[place])
    return float((values[best] + values[best + 1]) / 2)


def measure_errors(threshold: float, known: np.ndarray, unknown: np.ndarray) -> tuple[float, float]:
    """Return the shares of known examples beyond the threshold, and of unknown ones within it."""
    return float((known > threshold).mean()), float((unknown <= threshold).mean())
