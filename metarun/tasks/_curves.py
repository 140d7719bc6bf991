"""Regression to curves of one variable: random points, support and query, and a picture of one task."""

import itertools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metarun import base
from metarun.tasks import _drawing

COLORS = ("silver", "skyblue", "tab:blue", "navy", "tab:purple", "tab:pink")  # from few inner steps to many


def draw_uniform(key: PRNGKeyArray, shape: tuple[int, ...], bounds):
    """Draw random numbers between the two bounds."""
    return jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])


def to_episode(
    inputs: Float[Array, "example 1"],
    targets: Float[Array, "example 1"],
    shots: int,
    noise: float,
    query_noise: bool,
    key: PRNGKeyArray,
    facts: base.PyTree,
) -> base.Episode:
    """Return an episode: the first `shots` points are support, the others query.

    Args:
      noise: standard deviation of the noise on the support targets.
      query_noise: whether the query targets have noise too.
    """
    support_targets, query_targets = targets[:shots], targets[shots:]
    if noise:
        support_targets += noise * jax.random.normal(key, support_targets.shape)
    if noise and query_noise:
        query_key = jax.random.fold_in(key, 1)  # the noise of the support is the same with and without it
        query_targets += noise * jax.random.normal(query_key, query_targets.shape)
    support = base.Examples(inputs[:shots], support_targets)
    return base.Episode(support, base.Examples(inputs[shots:], query_targets), facts)


def draw(
    figure,
    episode: base.Episode,
    predictors: Mapping[int | None, Callable],
    curve: Callable,
    bounds: tuple[float, float],
    title: str = "One task of the test split",
) -> None:
    """Draw the true curve between the bounds, the support, and the learner after different numbers of inner steps.

    Args:
      curve: inputs [example, 1] -> targets without noise [example, 1].
    """
    inputs = np.linspace(*bounds, 200, dtype=np.float32)[:, None]
    axes = figure.subplots()
    axes.plot(inputs, jax.jit(curve)(inputs), color="black", linewidth=3, label="true curve")
    low, high = axes.get_ylim()
    axes.set_ylim(1.5 * low, 1.5 * high)  # one learner that diverges must not hide the others
    for color, (steps, predict) in zip(itertools.cycle(COLORS), predictors.items(), strict=False):
        axes.plot(inputs, predict(inputs), color=color, label=_drawing.name_learner(steps))
    axes.plot(*episode.support, "^", color="crimson", markersize=8, label="support")
    axes.set(xlabel="x", ylabel="y", title=title)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
