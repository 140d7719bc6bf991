"""Measuring learners on frozen episodes, compiled, with a value for every episode."""

import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray

from metarun import base, numbers, signals
from metarun.base import PyTree
from metarun.evaluation.episodes import FrozenEpisodes
from metarun.evaluation.statistics import Values
from metarun.evaluation.variants import Starts, Variant, average_starts, observe_variants
from metarun.numbers import Numbers


def make_measurement(
    variants: Mapping[str, Variant],
    episodes: FrozenEpisodes,
    at_once: int,
    axes: int = 0,
    listed: Numbers | None = None,
    renumber: Callable[[Numbers], Mapping[str, Variant]] | None = None,
    differing: Numbers | None = None,
    check: Callable[[], None] = signals.ignore,
) -> Callable[[base.Weights], Values]:
    """Make weights -> Values: every variant on every episode, in one program.

    Args:
      at_once: episodes that are computed in parallel, as in training, so that the memory is known to suffice.
      axes: how many leading axes the weights have, for learners that are all measured on the same episodes. The
        values have the same leading axes.
      listed: the numbers of the variants that the program takes as arguments; None: all are constants in it.
      renumber: gives the variants with other numbers; see `metarun.numbers`.
      differing: numbers in which the learners on the first leading axis differ, {path: [replica]}.
      check: is called again and again while something is compiled or measured; what it raises ends the measurement.
    """
    family, objective = episodes.family, episodes.family.problem.objective
    count = episodes.keys.shape[0]
    # The last batch is filled with episodes from the start of the list.
    order = np.resize(np.arange(count), (-(-count // at_once), at_once))

    def measure_batches(
        values: Numbers, differing: Numbers, weights: base.Weights, data: PyTree, keys, training: PyTree
    ):
        shared = renumber(values) if renumber else variants

        def choose(own: Numbers) -> Mapping[str, Variant]:
            return renumber({**values, **own}) if own and renumber else shared

        def average_learner(own: Numbers, weights: base.Weights) -> Starts:
            return average_starts(choose(own), family, weights, training, at_once)

        def measure_learner(own: Numbers, weights: base.Weights, starts: Starts, keys: Key[Array, "episode"]):
            chosen = choose(own)
            return jax.vmap(lambda key: measure_episode(family, chosen, weights, starts, data, key))(keys)

        average, measure_batch = average_learner, measure_learner
        for axis in reversed(range(axes)):  # the members of a trial share its numbers
            average = jax.vmap(average, in_axes=(None if axis else 0, 0))
            measure_batch = jax.vmap(measure_batch, in_axes=(None if axis else 0, 0, 0, None))
        starts = average(differing, weights)
        return jax.lax.map(lambda batch: measure_batch(differing, weights, starts, batch), keys[order])

    measure_all = numbers.jit(measure_batches, listed or {}, check=check)
    own_numbers = dict(differing or {})
    training = episodes.training if any(variant.is_mean for variant in variants.values()) else ()

    def measure(weights: base.Weights) -> Values:
        measured = measure_all(own_numbers, weights, episodes.data, episodes.keys, training)
        batches = signals.wait_for(lambda: jax.device_get(measured), check)
        columns = jax.tree.map(lambda leaf: join_batches(leaf, axes, count), batches)
        return {  # in the order of the variants: jax has sorted the keys
            variant: score_columns(objective, columns[variant], axes, check) for variant in variants
        }

    return measure


def measure_episode(
    family: base.TaskFamily,
    chosen: Mapping[str, Variant],
    weights: base.Weights,
    starts: Starts,
    data: PyTree,
    key: PRNGKeyArray,
) -> dict[str, dict[str, PyTree]]:
    """Return {variant: metrics} of one episode; see `observe_variants`."""
    objective, episode = family.problem.objective, family.sample(data, key)

    def judge(algorithm: base.Algorithm, learner: PyTree) -> dict[str, PyTree]:
        if family.problem.stream and algorithm.follow is not None:
            answers = algorithm.follow(weights, episode.query)
            return objective.metrics(lambda _: answers, episode.query)
        return objective.metrics(functools.partial(algorithm.predict, learner), episode.query)

    return observe_variants(chosen, weights, episode.support, judge, starts)


def join_batches(batches: np.ndarray, axes: int, count: int) -> np.ndarray:
    """Return [batch, *axes, at_once, ...] as [*axes, episode, ...], the first `count` episodes."""
    leading = np.moveaxis(batches, 0, axes)
    shape = leading.shape
    return leading.reshape(*shape[:axes], -1, *shape[axes + 2 :])[(slice(None),) * axes + (slice(count),)]


def score_columns(
    objective: base.Objective,
    columns: dict[str, np.ndarray],
    axes: int,
    check: Callable[[], None] = signals.ignore,
) -> dict[str, np.ndarray]:
    """Return {metric: [*axes, episode]} from what the program gave, {name: [*axes, episode, ...]}.

    Args:
      check: is called before each episode that is scored on the host; what it raises ends the scoring.
    """
    if axes:
        size = len(next(iter(columns.values())))
        slices = [
            score_columns(
                objective, {name: column[place] for name, column in columns.items()}, axes - 1, check
            )
            for place in range(size)
        ]
        return {name: np.stack([scores[name] for scores in slices]) for name in slices[0]}
    if objective.score is None:
        return columns
    count = len(next(iter(columns.values())))
    scores = []
    for index in range(count):
        check()
        scores.append(objective.score({name: column[index] for name, column in columns.items()}))
    return {name: np.array([score[name] for score in scores]) for name in scores[0]}
