"""What the best possible rule reaches on frozen episodes, for task families that can compute it."""

import jax
import numpy as np

from metarun import base
from metarun.base import PyTree
from metarun.evaluation.episodes import FrozenEpisodes

BATCH = 50  # episodes that are sampled at once

Columns = dict[str, np.ndarray]  # {metric: [episode]}


def measure(episodes: FrozenEpisodes) -> Columns | None:
    """Return the metrics of the best possible rule on each episode; None: the family does not know it."""
    if episodes.family.ceiling is None:
        return None
    reached = episodes.family.ceiling(*draw(episodes))
    return {name: np.asarray(column, np.float64) for name, column in reached.items()}


def draw(episodes: FrozenEpisodes) -> tuple[PyTree, base.Episode]:
    """Return the data of the split and all episodes [episode], as numpy arrays."""
    family = episodes.family

    @jax.jit
    def sample(data: PyTree, keys):
        return jax.lax.map(lambda key: family.sample(data, key), keys, batch_size=BATCH)

    drawn, data = jax.device_get((sample(episodes.data, episodes.keys), episodes.data))
    return data, drawn
