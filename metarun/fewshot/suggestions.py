"""The pictures that are worth a label next: unsure ones, unlike all that has a label, and unlike one another.

Pictures are chosen one after the other. Each time it is the one with the largest

    (1 − (p₁ − p₂)) · min ‖f − g‖

p₁ and p₂ are its two largest probabilities: their margin is the usual measure of doubt in active learning (Settles
2009). A picture beyond the threshold of `novelty` counts as wholly unsure. The minimum is over all pictures g that have
a label or were chosen before: the rule of farthest points, which covers the pictures evenly (Sener and Savarese 2018,
arXiv 1708.00489). The product gives nothing to a copy of a picture, and little to what is clear.

Without any label all pictures are unsure, and the first is the one nearest to their mean.
"""

import numpy as np
from jaxtyping import Bool, Float

from metarun.fewshot import centroids

MOST_CANDIDATES = 2000  # the least sure pictures; the others are not looked at
MOST_LABELLED = 5000  # pictures of the support that are looked at, spread evenly
LEAST_DOUBT = 1e-3  # so that some pictures are suggested where all answers are sure
COPY = 1e-3  # a smaller distance is that of a copy: single precision gives copies about 3e-4


def measure_doubt(
    probabilities: Float[np.ndarray, "example way"], is_unknown: Bool[np.ndarray, "example"]
) -> Float[np.ndarray, "example"]:
    """Return how unsure each answer is, from LEAST_DOUBT to 1."""
    best = np.sort(probabilities, axis=1)[:, -2:]
    return np.where(is_unknown, 1.0, np.maximum(1 - (best[:, 1] - best[:, 0]), LEAST_DOUBT))


def choose(
    doubt: Float[np.ndarray, "example"],
    features: Float[np.ndarray, "example feature"],
    labelled: Float[np.ndarray, "labelled feature"],
    count: int,
) -> list[int]:
    """Return the places of at most `count` pictures, the most useful first. Those without any use are left out.

    Args:
      doubt: 0 for a picture that must not be chosen.
      features: of length 1, as `labelled`.
    """
    order = np.argsort(-doubt, kind="stable")
    if not len(labelled):  # all are equally unsure, so those that are looked at are spread evenly
        order = np.unique(np.linspace(0, len(doubt) - 1, MOST_CANDIDATES).astype(int))
    order = order[:MOST_CANDIDATES]
    candidates, own = features[order], doubt[order]
    nearest = measure_nearest(candidates, labelled) if len(labelled) else np.full(len(order), np.inf)
    chosen: list[int] = []
    while len(chosen) < min(count, len(order)):
        if np.isfinite(nearest).all():
            worth = np.where(nearest > COPY, own * nearest, 0.0)
        else:  # nothing is labelled, and nothing chosen
            worth = 3 - measure_nearest(candidates, candidates.mean(axis=0, keepdims=True))
        place = int(worth.argmax())
        if worth[place] <= 0:
            break
        chosen.append(place)
        nearest = np.minimum(nearest, measure_nearest(candidates, candidates[place : place + 1]))
    return order[chosen].tolist()


def measure_nearest(
    features: Float[np.ndarray, "example feature"], labelled: Float[np.ndarray, "labelled feature"]
) -> Float[np.ndarray, "example"]:
    """Return the distance of each picture to the nearest of some others."""
    places = np.unique(np.linspace(0, len(labelled) - 1, MOST_LABELLED).astype(int))
    squares = centroids.measure_squares(labelled[places].astype(float), features)
    return np.sqrt(squares.min(axis=1))
