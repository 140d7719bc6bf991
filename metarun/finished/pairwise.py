"""Which of several learners differ: paired tests, corrected for how many pairs there are.

Two learners that were trained with the same seeds are paired by seed and episode, so the test is about other seeds and
other episodes; see `evaluation.statistics`. If they share fewer than two seeds they are paired by episode alone, and
the noise of training counts on each side that has several seeds. One seed says nothing about the noise of training: if
both sides have one, the test is about the two learners that were trained, and other episodes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarun.evaluation.statistics import Estimate, Part, estimate, estimate_unpaired, find_half_width

LEVEL = 0.05  # the chance that any of all pairs is said to differ though none does
HALVINGS = 60  # of the interval, on a logarithmic scale, in which a p-value is looked for
SMALLEST = 1e-300  # p-value


class Pair(NamedTuple):
    """The difference of two learners on the same episodes."""

    estimate: Estimate
    seeds: tuple[int, ...]  # that the pairs are of; empty: the difference is paired by episode alone


class Measured(NamedTuple):
    """What one learner reached."""

    values: Float[np.ndarray, "seed episode"]
    seeds: tuple[int, ...]  # one for each row of the values; empty: they are not known


def subtract(left: Measured, right: Measured) -> Pair:
    """Return left − right, paired by the seeds that both have, if these are two or more, and by episode."""
    shared = tuple(dict.fromkeys(seed for seed in left.seeds if seed in right.seeds))
    if len(shared) > 1:
        rows = [[side.seeds.index(seed) for seed in shared] for side in (left, right)]
        first, second = (side.values[places] for side, places in zip((left, right), rows, strict=True))
        return Pair(estimate(first.astype(np.float64) - second), shared)
    if len(left.values) == len(right.values) == 1:
        return Pair(estimate(left.values.astype(np.float64) - right.values), shared)
    return Pair(estimate_unpaired(left.values, right.values), ())


def find_p_value(difference: Estimate) -> float:
    """Return the two-sided p-value of the test that a mean difference is zero.

    The interval that misses the true mean with this chance ends at zero. It is Student's paired test over the episodes
    for learners with one seed. Learners with the same value everywhere have 1, learners with the same
    difference everywhere 0. The value is NaN if a difference is not finite.
    """
    from scipy.special import stdtr  # its import takes a tenth of a second, which --help need not wait for

    mean, parts = difference.mean, [part for part in difference.parts if part.variance != 0.0]
    variance = sum(part.variance for part in parts)
    if not math.isfinite(mean) or not math.isfinite(variance):
        return math.nan
    if not parts:
        return 1.0 if mean == 0.0 else 0.0
    distance = abs(mean) / variance**0.5
    own = [2 * float(stdtr(part.freedom, -distance)) for part in parts]
    return own[0] if len(own) == 1 else find_between(min(own), max(own), abs(mean), parts)


def find_between(low: float, high: float, mean: float, parts: Sequence[Part]) -> float:
    """Return the chance in [low, high] for which the half-width is the mean."""
    bounds = [math.log(max(low, SMALLEST)), math.log(max(high, SMALLEST))]
    for _ in range(HALVINGS):
        middle = sum(bounds) / 2
        holds_zero = find_half_width(parts, math.exp(middle)) >= mean
        bounds[0 if holds_zero else 1] = middle
    return math.exp(sum(bounds) / 2)


def correct_by_holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values for several tests at once (Holm 1979): compared with one level, they keep it for all together.

    A NaN is no test: it stays, and does not count.
    """
    finite = [place for place, value in enumerate(p_values) if value == value]
    corrected, least = [float("nan")] * len(p_values), 0.0
    for rank, place in enumerate(sorted(finite, key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(finite) - rank) * p_values[place]))
        corrected[place] = least
    return corrected


def find_possible_best(p_values: Sequence[float]) -> list[bool]:
    """Return for each learner but the best measured one whether it may be the truly best of all.

    A learner is excluded if the best measured one is ahead by a one-sided test at LEVEL over the number of learners
    beside it. With a chance of 1 − LEVEL the truly best one is not excluded, whichever is measured as the best: the
    bound holds for all that may be measured ahead of it together (multiple comparisons with the best, Hsu 1984, The
    Annals of Statistics 12(3), with the bound of Bonferroni).

    Args:
      p_values: of the two-sided tests of the best measured learner against each of the others; NaN excludes one, too.
    """
    count = sum(value == value for value in p_values)
    return [value / 2 * count >= LEVEL for value in p_values]
