"""Scores become probabilities that mean what they say: one number divides all scores.

    p(k | f) = softmax(score(f) / T)_k                       Guo et al. 2017, arXiv 1706.04599

T is fitted to the scores of a head for examples of the support that it has not seen (`heads.LeftOut`), so that the few
labels serve twice without a head being asked about what it was fitted to. On n such examples the cross-entropy has
the targets of Platt (1999, "Probabilistic outputs for support vector machines"): (n + 1)/(n + 2) for the true class,
and the rest in equal parts for the others. Without them T would be 0 whenever all examples are right, which a few of
them often are. T then says what Laplace's rule of succession does: ten of ten are right, so one is sure by 11/12.

An example that is left out meets a class that has one picture less than the queries meet. So T is a little too
large for classes of two or three pictures.
"""

import numpy as np
from jaxtyping import Float, Int

# T without any example that could be left out: for a squared distance of features of length 1, which lies in [0, 4].
# It is a guess, and what is printed says that nothing was fitted.
UNFITTED = 0.1
HALVINGS = 50  # of the interval in which log T is sought
REACH = 1e6  # T lies within this factor of the spread of the scores


def fit(scores: Float[np.ndarray, "example way"], labels: Int[np.ndarray, "example"]) -> float:
    """Return the temperature that the scores of examples with these labels ask for, above 0.

    The cross-entropy is convex in 1/T, so its slope is zero once; it is found by halving.
    """
    targets = make_targets(labels, scores.shape[1])
    scale = float(np.std(scores - scores.mean(axis=1, keepdims=True))) or 1.0
    low, high = -np.log(REACH), np.log(REACH)  # of log(scale / T)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        gap = (make_probabilities(scores, scale / np.exp(middle)) - targets) * scores
        low, high = (middle, high) if gap.sum() < 0 else (low, middle)
    return float(scale / np.exp((low + high) / 2))


def make_targets(labels: Int[np.ndarray, "example"], ways: int) -> Float[np.ndarray, "example way"]:
    """Return the targets of Platt: (n + 1)/(n + 2) for the true class of n examples, the rest for the others."""
    count = len(labels)
    targets = np.full((count, ways), 1 / (count + 2) / (ways - 1))
    targets[np.arange(count), labels] = (count + 1) / (count + 2)
    return targets


def make_probabilities(
    scores: Float[np.ndarray, "example way"], temperature: float
) -> Float[np.ndarray, "example way"]:
    """Return softmax(scores / temperature)."""
    shifted = (scores - scores.max(axis=1, keepdims=True)) / temperature
    powers = np.exp(shifted)
    return powers / powers.sum(axis=1, keepdims=True)
