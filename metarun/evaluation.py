"""Measuring learners on a frozen list of episodes, compiled, with a value for every episode.

The list depends on the evaluation's own seed, the split and the task family, never on the run's seed or the
algorithm: two methods are compared on the same episodes, pairwise. Its hash says which list it was.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray
from scipy.special import stdtrit

from metarun import base
from metarun.base import PyTree

SPLITS = ("train", "validation", "test")  # their order is part of the episodes' keys
Values = dict[str, dict[str, np.ndarray]]  # {variant: {metric: [episode]}}, or [replica, member, episode]


class Interval(NamedTuple):
    """A mean over episodes, with the half-width of its 95 % confidence interval."""

    mean: float
    ci95: float


def interval(values: Float[np.ndarray, "episode"]) -> Interval:
    """Mean and Student's interval of two or more independent values [episode]."""
    count = values.shape[0]
    deviation = float(np.std(values, ddof=1, dtype=np.float64))
    return Interval(
        float(np.mean(values, dtype=np.float64)), float(stdtrit(count - 1, 0.975)) * deviation / count**0.5
    )


def summarise(values: Values) -> dict[str, dict[str, dict[str, Any]]]:
    """{variant: {metric: {"mean": ..., "ci95": ...}}}, ready for JSON; see `summary`."""
    return {
        variant: {name: summary(column) for name, column in columns.items()}
        for variant, columns in values.items()
    }


def summary(column: Float[np.ndarray, "*replica episode"]) -> dict[str, Any]:
    """{"mean", "ci95"} over the episodes.

    Of values [replica, episode] these are of the mean over the replicas, and "seeds" is beside them: the mean of each
    replica, "values", and the half-width of Student's interval of those around the same mean, "ci95".
    """
    if column.ndim == 1:
        return interval(column)._asdict()
    of_seeds = column.mean(axis=1, dtype=np.float64)
    seeds = {"ci95": interval(of_seeds).ci95, "values": of_seeds.tolist()}
    return interval(column.mean(axis=0, dtype=np.float64))._asdict() | {"seeds": seeds}


def of_learner(values: Values, position: Mapping[str, int]) -> Values:
    """The values of the learner that stands there on the leading axes, [episode]."""
    place = tuple(position.values())
    return {
        variant: {name: column[place] for name, column in columns.items()}
        for variant, columns in values.items()
    }


def episode_keys(seed: int, split: str, count: int) -> Key[Array, "episode"]:
    """The keys of the frozen list, one an episode; a longer list begins with the shorter one."""
    key = jax.random.fold_in(jax.random.key(seed), SPLITS.index(split))
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(count))


def episodes_hash(
    family: base.TaskFamily, data: PyTree, keys: Key[Array, "episode"], recipe: Mapping[str, Any]
) -> str:
    """The first 16 hex digits of a SHA-256 over the recipe and every whole number of every episode.

    Whole numbers (labels, class ids) say which examples were drawn, and are the same on every device. Inputs
    that are computed differ in their last bit between devices; the recipe and the keys stand for those.
    """
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode())
    digest.update(np.asarray(jax.random.key_data(keys)).tobytes())

    def whole_numbers(key):
        leaves = jax.tree.leaves(family.sample(data, key))
        return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.integer)]

    for column in jax.jit(lambda keys: jax.lax.map(whole_numbers, keys))(keys):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]


def episode_groups(
    family: base.TaskFamily, data: PyTree, keys: Key[Array, "episode"]
) -> Int[np.ndarray, "episode"] | None:
    """Which of the family's groups every episode belongs to; None without groups."""
    groups = family.groups
    if groups is None:
        return None
    indices = jax.jit(lambda keys: jax.lax.map(lambda key: groups.of(family.sample(data, key).facts), keys))
    return np.asarray(indices(keys))


def make_measure(
    variants: Mapping[str, base.Algorithm], family: base.TaskFamily, at_once: int, axes: int = 0
) -> Callable:
    """(weights, data[split], keys [episode]) -> Values: every variant on every episode, in one program.

    Args:
      at_once: episodes that are computed in parallel, as in training, so that the memory is known to suffice.
      axes: how many leading axes the weights have, of learners that are all measured on the same episodes; they
        are the leading axes of the values, too.
    """

    def one_episode(weights: base.Weights, data: PyTree, key: PRNGKeyArray):
        episode = family.sample(data, key)

        def measure(algorithm: base.Algorithm):
            learner = algorithm.adapt(weights, episode.support)
            return family.objective.metrics(lambda inputs: algorithm.predict(learner, inputs), episode.query)

        return {name: measure(algorithm) for name, algorithm in variants.items()}

    @jax.jit
    def all_episodes(weights: base.Weights, data: PyTree, keys: Key[Array, "episode"]):
        batch = jax.vmap(one_episode, in_axes=(None, None, 0))
        for _ in range(axes):
            batch = jax.vmap(batch, in_axes=(0, None, None))
        return jax.lax.map(lambda part: batch(weights, data, part), keys.reshape(-1, at_once))

    def measure(weights: base.Weights, data: PyTree, keys: Key[Array, "episode"]) -> Values:
        count = keys.shape[0]
        filled = jnp.arange(-(-count // at_once) * at_once) % count  # the list again fills the last batch
        batches = jax.device_get(all_episodes(weights, data, keys[filled]))
        columns = jax.tree.map(lambda leaf: joined(leaf, axes, count), batches)
        return {  # in the order of the variants: jax has sorted the keys
            variant: scored_each(family.objective, columns[variant], axes) for variant in variants
        }

    return measure


def joined(batches: np.ndarray, axes: int, count: int) -> np.ndarray:
    """[batch, *axes, at_once, ...] as [*axes, episode, ...], the first `count` episodes."""
    leading = np.moveaxis(batches, 0, axes)
    shape = leading.shape
    return leading.reshape(*shape[:axes], -1, *shape[axes + 2 :])[(slice(None),) * axes + (slice(count),)]


def scored_each(
    objective: base.Objective, columns: dict[str, np.ndarray], axes: int
) -> dict[str, np.ndarray]:
    """{metric: [*axes, episode]} of what the program gave, {name: [*axes, episode, ...]}."""
    if axes == 0:
        return scored(objective, columns)
    size = len(next(iter(columns.values())))
    parts = [
        scored_each(objective, {name: column[place] for name, column in columns.items()}, axes - 1)
        for place in range(size)
    ]
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def scored(objective: base.Objective, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{metric: [episode]} of what the program gave, {name: [episode, ...]}."""
    if objective.score is None:
        return columns
    count = len(next(iter(columns.values())))
    scores = [
        objective.score({name: column[index] for name, column in columns.items()}) for index in range(count)
    ]
    return {name: np.array([score[name] for score in scores]) for name in scores[0]}
