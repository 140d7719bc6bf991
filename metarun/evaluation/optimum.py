"""What the best possible rule reaches on frozen episodes, for task families that can compute it."""

import jax
import numpy as np

from metarun.base import PyTree
from metarun.evaluation.episodes import FrozenEpisodes

BATCH = 50  # episodes that are sampled at once

Columns = dict[str, np.ndarray]  # {metric: [episode]}


def measure(episodes: FrozenEpisodes) -> Columns | None:
    """Return the metrics of the best possible rule on each episode; None: the family does not know it."""
    family = episodes.family
    if family.ceiling is None:
        return None

    @jax.jit
    def sample(data: PyTree, keys):
        return jax.lax.map(lambda key: family.sample(data, key), keys, batch_size=BATCH)

    drawn, data = jax.device_get((sample(episodes.data, episodes.keys), episodes.data))
    reached = family.ceiling(data, drawn)
    return {name: np.asarray(column, np.float64) for name, column in reached.items()}
