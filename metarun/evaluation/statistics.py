"""Means over seeds and episodes with their confidence intervals.

Every seed answers the same episodes, so values [seed, episode] are a crossed design: a value is a mean, plus what its
seed adds, plus what its episode adds, plus a rest. An interval over episodes alone says nothing about other seeds, and
one over seeds alone nothing about other episodes. Ours is about both:

    variance of the mean = MS(seed) / RE + max(MS(episode) − MS(rest), 0) / RE        R seeds, E episodes

with the mean squares MS of a two-way analysis of variance. This is the estimate of studies in which several readers
judge the same cases (Hillis 2007, Statistics in Medicine 26:596): each source of noise counts once, and the estimate
is never below that of the seeds alone. The two parts have R − 1 and E − 1 degrees of freedom, and the half-width is the
standard error times the mean of their two quantiles of Student's t, weighted by their variances (Cochran 1964,
Biometrics 20:191). It is Student's paired interval over the seeds if they decide, and over the episodes if those do.
Between these ends it is a little too wide: 95 to 97 % for 3 seeds (`tests/evaluation/test_coverage.py`).

A bootstrap over both axes (Owen 2007, Annals of Applied Statistics 1:386) estimates the same variance, but its
percentiles are too narrow for three seeds. That seeds belong into the interval: Bouthillier et al. 2021, arXiv
2103.03098; Agarwal et al. 2021, arXiv 2108.13264.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Values = dict[str, dict[str, np.ndarray]]  # {variant: {metric: [episode]}}, or [replica, member, episode]

CHANCE = 0.05  # that an interval does not hold the true mean


class Interval(NamedTuple):
    """A mean, with the half-width of its 95 % confidence interval."""

    mean: float
    ci95: float


class Part(NamedTuple):
    """A part of the variance of a mean, from one source of noise."""

    variance: float
    freedom: int  # the degrees of freedom of its estimate, 1 or more


class Estimate(NamedTuple):
    """A mean, and the independent parts of its variance."""

    mean: float
    parts: tuple[Part, ...]

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        return Interval(self.mean, find_half_width(self.parts))


def find_half_width(parts: Iterable[Part], chance: float = CHANCE) -> float:
    """Return the half-width of the interval that misses the true mean with this chance (Cochran 1964)."""
    from scipy.special import stdtrit  # its import takes a tenth of a second, which --help need not wait for

    known = [part for part in parts if part.variance != 0.0]  # NaN stays
    total = sum(part.variance for part in known)
    quantiles = [-float(stdtrit(part.freedom, chance / 2)) for part in known]
    weighted = sum(part.variance * quantile for part, quantile in zip(known, quantiles, strict=True))
    return weighted / total**0.5 if known else 0.0


def estimate(values: Float[np.ndarray, "seed episode"]) -> Estimate:
    """Return the mean of values over seeds and episodes; with one seed the variance is that over episodes alone."""
    values = values.astype(np.float64)
    seeds, episodes = values.shape
    mean, over_episodes = float(values.mean()), values.mean(axis=0)
    variance = float(np.var(over_episodes, ddof=1)) / episodes
    if seeds == 1:
        return Estimate(mean, (Part(variance, episodes - 1),))
    own = split_seeds(values)
    return Estimate(
        mean,
        (Part(own.between, seeds - 1), Part(float(np.maximum(variance - own.rest, 0.0)), episodes - 1)),
    )


def estimate_unpaired(
    left: Float[np.ndarray, "seed episode"], right: Float[np.ndarray, "seed2 episode"]
) -> Estimate:
    """Return left − right for learners with different seeds: paired by episode alone.

    A side with one seed adds no part for its training noise, of which one seed says nothing.
    """
    difference = left.mean(axis=0, dtype=np.float64) - right.mean(axis=0, dtype=np.float64)
    count = len(difference)
    variance = float(np.var(difference, ddof=1)) / count
    parts = []
    for side in (left.astype(np.float64), right.astype(np.float64)):
        if len(side) > 1:
            own = split_seeds(side)
            variance -= own.rest
            parts.append(Part(own.between, len(side) - 1))
    return Estimate(float(difference.mean()), (*parts, Part(float(np.maximum(variance, 0.0)), count - 1)))


class SeedNoise(NamedTuple):
    """Parts of the variance of a mean over seeds and episodes."""

    between: float  # MS(seed) / RE: that of the means of the seeds
    rest: float  # MS(rest) / RE: of it, what is neither the seed's alone nor the episode's


def split_seeds(values: Float[np.ndarray, "seed episode"]) -> SeedNoise:
    """Return the noise of two or more seeds."""
    seeds, episodes = values.shape
    own, common = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    rest = values - own - common + values.mean()
    square = float(np.sum(rest**2)) / ((seeds - 1) * (episodes - 1))
    return SeedNoise(float(np.var(own, ddof=1)) / seeds, square / (seeds * episodes))


def estimate_mean(values: Float[np.ndarray, "episode"]) -> Interval:
    """Return the mean and Student's interval of two or more independent values."""
    from scipy.special import stdtrit  # its import takes a tenth of a second, which --help need not wait for

    count = values.shape[0]
    deviation = float(np.std(values, ddof=1, dtype=np.float64))
    return Interval(
        float(np.mean(values, dtype=np.float64)), float(stdtrit(count - 1, 0.975)) * deviation / count**0.5
    )


def summarise(values: Values, crossed: bool = True) -> dict[str, dict[str, dict[str, Any]]]:
    """Return {variant: {metric: {"mean": ..., "ci95": ...}}}, ready for JSON; see `summarise_column`."""
    return {
        variant: {name: summarise_column(column, crossed) for name, column in columns.items()}
        for variant, columns in values.items()
    }


def summarise_column(column: Float[np.ndarray, "*replica episode"], crossed: bool = True) -> dict[str, Any]:
    """Return {"mean", "ci95"}: over the episodes, and over the replicas if there are several.

    Values [replica, episode] also give "episodes" and "seeds", each with a "ci95" over that axis alone; "seeds" has the
    mean of each replica, too, as "values". If the values of some episodes are not finite, "not_finite" says of how
    many.

    Args:
      crossed: whether the replicas are seeds; else they are trials, which differ in more: then "ci95" is over the
        episodes of their mean, and there is no "episodes".
    """
    failed = int(np.sum(~np.isfinite(column).reshape(-1, column.shape[-1]).all(axis=0)))
    with np.errstate(invalid="ignore", over="ignore"):
        return _summarise_column(column, crossed) | ({"not_finite": failed} if failed else {})


def _summarise_column(column: Float[np.ndarray, "*replica episode"], crossed: bool) -> dict[str, Any]:
    if column.ndim == 1:
        return estimate_mean(column)._asdict()
    replica_means = column.mean(axis=1, dtype=np.float64)
    seeds = {"ci95": estimate_mean(replica_means).ci95, "values": replica_means.tolist()}
    over_episodes = estimate_mean(column.mean(axis=0, dtype=np.float64))
    if not crossed:
        return over_episodes._asdict() | {"seeds": seeds}
    return {
        "mean": over_episodes.mean,
        "ci95": estimate(column).interval.ci95,
        "episodes": {"ci95": over_episodes.ci95},
        "seeds": seeds,
    }


def choose_shown_metric(names: Iterable[str]) -> str:
    """Return the metric to show if none is named: the first one but the loss, or the loss if there is no other."""
    return next((name for name in names if name != "loss"), "loss")


def select_learner(values: Values, position: Mapping[str, int]) -> Values:
    """Return the values [episode] of the learner at a position on the leading axes."""
    place = tuple(position.values())
    return {
        variant: {name: column[place] for name, column in columns.items()}
        for variant, columns in values.items()
    }
