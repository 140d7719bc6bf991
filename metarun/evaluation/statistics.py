"""Means over episodes with their confidence intervals."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Values = dict[str, dict[str, np.ndarray]]  # {variant: {metric: [episode]}}, or [replica, member, episode]


class Interval(NamedTuple):
    """A mean over episodes, with the half-width of its 95 % confidence interval."""

    mean: float
    ci95: float


def estimate_mean(values: Float[np.ndarray, "episode"]) -> Interval:
    """Return the mean and Student's interval of two or more independent values."""
    from scipy.special import stdtrit  # its import takes a tenth of a second, which --help need not wait for

    count = values.shape[0]
    deviation = float(np.std(values, ddof=1, dtype=np.float64))
    return Interval(
        float(np.mean(values, dtype=np.float64)), float(stdtrit(count - 1, 0.975)) * deviation / count**0.5
    )


def summarise(values: Values) -> dict[str, dict[str, dict[str, Any]]]:
    """Return {variant: {metric: {"mean": ..., "ci95": ...}}}, ready for JSON; see `summarise_column`."""
    return {
        variant: {name: summarise_column(column) for name, column in columns.items()}
        for variant, columns in values.items()
    }


def summarise_column(column: Float[np.ndarray, "*replica episode"]) -> dict[str, Any]:
    """Return {"mean", "ci95"} over the episodes.

    Values [replica, episode] are first averaged over the replicas. Then "seeds" has the mean of each replica,
    "values", and the half-width of Student's interval of these around the same mean, "ci95". If the values of some
    episodes are not finite, "not_finite" says of how many.
    """
    failed = int(np.sum(~np.isfinite(column).reshape(-1, column.shape[-1]).all(axis=0)))
    with np.errstate(invalid="ignore", over="ignore"):
        return _summarise_column(column) | ({"not_finite": failed} if failed else {})


def _summarise_column(column: Float[np.ndarray, "*replica episode"]) -> dict[str, Any]:
    if column.ndim == 1:
        return estimate_mean(column)._asdict()
    replica_means = column.mean(axis=1, dtype=np.float64)
    seeds = {"ci95": estimate_mean(replica_means).ci95, "values": replica_means.tolist()}
    return estimate_mean(column.mean(axis=0, dtype=np.float64))._asdict() | {"seeds": seeds}


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
