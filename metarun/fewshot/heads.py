"""What turns features, or pictures, into scores of classes, fitted to a support: one function for each method.

    centroid   the nearest class mean (`centroids`)
    logistic   logistic regression (`softmax_regression`)
    learner    what a run has learned: its adapted learner, on the pictures themselves

Each head also gives its scores for examples of the support that it has not seen.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from metarun import base, errors
from metarun.fewshot import centroids, softmax_regression
from metarun.finished import support_check
from metarun.finished.prediction import TrainedRun

METHODS = ("centroid", "logistic", "learner")
MOST_REFITS = 100  # of a learner, spread evenly over the support
SMALLEST = 1e-30  # probability, so that its logarithm is finite

ONE_BY_ONE = "one by one"


class LeftOut(NamedTuple):
    """The scores for examples of the support that the head has not seen."""

    # In the support; an example that is alone in its class is not among them.
    places: Int[np.ndarray, "example"]
    scores: Float[np.ndarray, "example way"]
    how: str  # "one by one", "in 12 parts", or why there are none


class Head(NamedTuple):
    """A fitted classifier."""

    method: str
    score: Callable[[Any], np.ndarray]  # inputs [example, ...] -> scores [example, way]
    left_out: LeftOut


def fit_centroid(features: Float[np.ndarray, "example feature"], labels: Int[np.ndarray, "example"]) -> Head:
    """Fit the class means, in closed form; each example is left out exactly."""
    fitted = centroids.fit(features, labels)
    places = np.flatnonzero(fitted.counts[labels] > 1)
    scores = -centroids.measure_left_out(fitted, features)[places]

    def score(features):
        return -centroids.measure(fitted, features)

    return Head("centroid", score, LeftOut(places, scores, describe_refits(len(places), len(places))))


def fit_logistic(
    features: Float[np.ndarray, "example feature"],
    labels: Int[np.ndarray, "example"],
    strength: float = softmax_regression.STRENGTH,
) -> Head:
    """Fit logistic regression; see `softmax_regression` for the refits without each example."""
    fitted = softmax_regression.fit(features, labels, strength)
    parts = softmax_regression.share_out(labels, fitted.basis.shape[1])
    scores = softmax_regression.score_left_out(fitted, features, labels, parts, strength)
    places = np.flatnonzero(parts >= 0)

    def score(features):
        return softmax_regression.score(fitted, features)

    how = describe_refits(len(places), int(parts.max()) + 1)
    return Head("logistic", score, LeftOut(places, scores[places], how))


def fit_learner(run: TrainedRun, support: base.Examples) -> Head:
    """Adapt the learner of a run. It adapts anew without each of at most MOST_REFITS examples.

    Raises:
      ConfigError: the learner cannot take as many classes or examples.
    """
    learner = run.adapt(support)
    ways = learner.ways

    def score(inputs):
        return np.log(np.maximum(learner.predict(inputs), SMALLEST))

    places = support_check.choose_left_out(np.asarray(support.targets), MOST_REFITS)
    try:
        scores = np.log(np.maximum(run.answer_left_out(support, places), SMALLEST))
        how = describe_refits(len(places), len(places))
    except errors.ConfigError:
        places, scores = places[:0], np.zeros((0, ways))
        how = "none: the algorithm takes no smaller support"
    return Head("learner", score, LeftOut(places, scores, how))


def describe_refits(examples: int, refits: int) -> str:
    """Say how examples were left out."""
    if not examples:
        return "none: each class has one picture"
    return ONE_BY_ONE if refits == examples else f"in {refits} parts"
