"""Regression to sine curves of random amplitude and phase, from a few points.

Finn et al. 2017, arXiv 1703.03400, section 5.1: y = A·sin(x − φ) with A ~ U[0.1, 5], φ ~ U[0, π] and
x ~ U[−5, 5]; every task is drawn anew, so that the three splits differ in nothing but their random keys.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from metarun import base, losses
from metarun.ranges import AtLeast

COLORS = ("silver", "skyblue", "tab:blue", "navy", "tab:purple", "tab:pink")  # of more and more inner steps


@dataclass(frozen=True)
class Config:
    """The distribution of curves and how many points are seen of each."""

    shots: Annotated[int, AtLeast(1)] = 10  # support points, K in the papers
    queries: Annotated[int, AtLeast(1)] = 10  # query points
    amplitude: tuple[float, float] = (0.1, 5.0)  # A, lowest and highest
    phase: tuple[float, float] = (0.0, math.pi)  # φ in radians, lowest and highest
    inputs: tuple[float, float] = (-5.0, 5.0)  # x, lowest and highest
    noise: Annotated[float, AtLeast(0)] = 0.0  # standard deviation added to the support targets

    def __post_init__(self):
        for field in ("amplitude", "phase", "inputs"):
            lowest, highest = getattr(self, field)
            if lowest > highest:
                raise ValueError(f"{field} starts at {lowest}, above its end {highest}")


def build(config: Config) -> base.TaskFamily:
    """The family; its facts are `amplitude` and `phase`, each a scalar."""

    def sample(data, key) -> base.Episode:
        amplitude_key, phase_key, inputs_key, noise_key = jax.random.split(key, 4)
        amplitude = uniform(amplitude_key, (), config.amplitude)
        phase = uniform(phase_key, (), config.phase)
        inputs = uniform(inputs_key, (config.shots + config.queries, 1), config.inputs)
        targets = amplitude * jnp.sin(inputs - phase)
        support_targets = targets[: config.shots]
        if config.noise:
            support_targets += config.noise * jax.random.normal(noise_key, (config.shots, 1))
        support = base.Examples(inputs[: config.shots], support_targets)
        query = base.Examples(inputs[config.shots :], targets[config.shots :])
        return base.Episode(support, query, {"amplitude": amplitude, "phase": phase})

    def draw(figure, episode: base.Episode, predictors) -> None:
        inputs = jnp.linspace(*config.inputs, 200)[:, None]
        truth = episode.facts["amplitude"] * jnp.sin(inputs - episode.facts["phase"])
        axes = figure.subplots()
        axes.plot(inputs, truth, color="black", linewidth=3, label="true curve")
        low, high = axes.get_ylim()
        axes.set_ylim(1.5 * low, 1.5 * high)  # a learner that diverges must not hide the others
        for color, (steps, predict) in zip(itertools.cycle(COLORS), predictors.items(), strict=False):
            label = f"after {steps} step{'s' * (steps != 1)}"
            axes.plot(inputs, predict(inputs), color=color, label=label)
        axes.plot(*episode.support, "^", color="crimson", markersize=8, label="support")
        axes.set(xlabel="x", ylabel="y", title="One task of the test split")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)

    splits = dict.fromkeys(("train", "validation", "test"), ())
    return base.TaskFamily(splits, sample, losses.regression(), base.Spec((1,), 1), draw)


def uniform(key, shape: tuple[int, ...], bounds: tuple[float, float]):
    """Random numbers between the bounds."""
    return jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])
