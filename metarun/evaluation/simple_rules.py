"""What rules without any training reach on frozen episodes, for task families that have such rules."""

from typing import Any

import numpy as np

from metarun.evaluation import optimum
from metarun.evaluation.episodes import FrozenEpisodes
from metarun.evaluation.statistics import estimate_mean

Columns = dict[str, dict[str, np.ndarray]]  # {rule: {metric: [episode]}}


def measure(episodes: FrozenEpisodes) -> Columns | None:
    """Return the metrics of every rule on each episode; None: the family has none."""
    family = episodes.family
    if family.baselines is None:
        return None
    reached = family.baselines(*optimum.draw(episodes))
    return {
        rule: {name: np.asarray(column, np.float64) for name, column in columns.items()}
        for rule, columns in reached.items()
    }


def summarise(columns: Columns | None) -> dict[str, dict[str, Any]]:
    """Return {rule: {metric: {"mean", "ci95"}}} over the episodes."""
    return {
        rule: {name: estimate_mean(column)._asdict() for name, column in metrics.items()}
        for rule, metrics in (columns or {}).items()
    }
