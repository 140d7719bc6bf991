"""The frozen episodes of a split: the same list for every algorithm, so that two methods are compared pairwise.

The list depends on the evaluation's own seed, the split and the task family, and neither on the run's seed nor on the
algorithm. Its hash says which list it was.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from metarun import base, config, errors
from metarun.assembly import Tasks
from metarun.base import PyTree

SPLITS = ("train", "validation", "test")  # their order is part of the episodes' keys


class FrozenEpisodes(NamedTuple):
    """A frozen list of episodes, which are sampled again whenever they are needed."""

    family: base.TaskFamily  # as it is evaluated
    split: str
    data: PyTree  # of this split
    keys: Key[Array, "episode"]
    training: PyTree = ()  # data of the training split, for learners that begin at a mean over its tasks


def freeze(
    tasks: Tasks, evaluation: config.Evaluation, split: str | None = None, count: int | None = None
) -> FrozenEpisodes:
    """Return the frozen episodes of an evaluation.

    Args:
      split: None: the one that the evaluation measures.
      count: how many; None: as many as the evaluation measures. A longer list begins with the shorter one.

    Raises:
      ConfigError: the task family has no such split.
    """
    split = split or evaluation.split
    if split not in tasks.data:
        raise errors.ConfigError(
            f"the task family has no {split} split", "evaluation.split", f"use one of {', '.join(tasks.data)}"
        )
    keys = make_keys(evaluation.seed, split, count or evaluation.episodes)
    return FrozenEpisodes(tasks.evaluated, split, tasks.data[split], keys, tasks.data.get("train", ()))


def make_keys(seed: int, split: str, count: int) -> Key[Array, "episode"]:
    """Return the keys of a frozen list, one for each episode."""
    return _make_keys(np.uint32(seed), np.uint32(SPLITS.index(split)), count)


@functools.partial(jax.jit, static_argnums=2)
def _make_keys(seed, split, count: int) -> Key[Array, "episode"]:
    key = jax.random.fold_in(jax.random.key(seed), split)
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(count))


def hash_episodes(episodes: FrozenEpisodes, recipe: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of a SHA-256 over the recipe and every whole number of every episode.

    Whole numbers (labels, class ids) say which examples were drawn, and are the same on every device. Inputs
    that are computed differ in their last bit between devices; the recipe and the keys stand for those.
    """
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode())

    @jax.jit
    def sample_integers(data: PyTree, keys):
        def sample(key):
            leaves = jax.tree.leaves(episodes.family.sample(data, key))
            return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.integer)]

        return jax.random.key_data(keys), *jax.lax.map(sample, keys)

    for column in jax.device_get(sample_integers(episodes.data, episodes.keys)):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]


def group_episodes(episodes: FrozenEpisodes) -> Int[np.ndarray, "episode"] | None:
    """Return the place of each episode among the family's groups; None: the family has no groups."""
    family, groups = episodes.family, episodes.family.groups
    if groups is None:
        return None

    @jax.jit
    def locate(data: PyTree, keys):
        return jax.lax.map(lambda key: groups.locate(family.sample(data, key).facts), keys)

    return np.asarray(locate(episodes.data, episodes.keys))
