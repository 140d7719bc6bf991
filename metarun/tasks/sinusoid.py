"""Regression to sine curves of random amplitude and phase, from a few points.

Finn et al. 2017, arXiv 1703.03400, section 5.1: y = A·sin(x − φ) with A ~ U[0.1, 5], φ ~ U[0, π] and
x ~ U[−5, 5]. Every task is drawn anew, so that the three splits differ in nothing but their random keys.

We add two things to the paper. `harmonics` H gives y = Σ_k A_k·sin(k·x − φ_k), k = 1 … H; each φ_k is drawn like φ, and
each A_k like A and then divided by k. `test_amplitude`, `test_phase` and `test_inputs` are other ranges for the test
split, support and query alike, so that it can reach beyond training. Validation is drawn like training.

The best possible error is that of the posterior mean over amplitude and phase, given the support and the ranges of the
split (`_posterior`); it is known for one harmonic. Without noise it is next to zero from two points on.
"""

import functools
import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarun import base, losses
from metarun.ranges import AtLeast
from metarun.tasks import _curves, _posterior

RANGES = ("amplitude", "phase", "inputs")  # each has a field test_..., too


@dataclass(frozen=True)
class Config:
    """The distribution of curves, and how many points of each are seen."""

    shots: Annotated[int, AtLeast(1)] = 10  # support points; K in the papers
    queries: Annotated[int, AtLeast(1)] = 10  # query points
    amplitude: tuple[float, float] = (0.1, 5.0)  # A, lowest and highest
    phase: tuple[float, float] = (0.0, math.pi)  # φ in radians, lowest and highest
    inputs: tuple[float, float] = (-5.0, 5.0)  # x, lowest and highest
    noise: Annotated[float, AtLeast(0)] = 0.0  # standard deviation of the noise on the support targets
    query_noise: bool = False  # whether the query targets have noise too
    harmonics: Annotated[int, AtLeast(1)] = 1  # H, the number of sine curves that are added
    test_amplitude: tuple[float, float] | None = None  # A of the test split; null: as in training
    test_phase: tuple[float, float] | None = None  # φ of the test split; null: as in training
    test_inputs: tuple[float, float] | None = None  # x of the test split; null: as in training

    def __post_init__(self):
        for field in (*RANGES, *(f"test_{name}" for name in RANGES)):
            lowest, highest = getattr(self, field) or (0.0, 0.0)
            if lowest > highest:
                raise ValueError(f"{field} starts at {lowest}, above its end {highest}")

    @property
    def has_ceiling(self) -> bool:
        """Whether the best possible error is known: that of the posterior mean over one amplitude and phase."""
        return self.harmonics == 1


class Bounds(NamedTuple):
    """The lowest and highest value of each range: numbers, or arrays [2] if the test split has ranges of its own."""

    amplitude: tuple[float, float] | Float[Array, "2"]
    phase: tuple[float, float] | Float[Array, "2"]
    inputs: tuple[float, float] | Float[Array, "2"]


def build(config: Config) -> base.TaskFamily:
    """Build the family. Its facts are `amplitude` and `phase`, each a scalar, or [harmonic] if there are several."""
    training_bounds = Bounds(config.amplitude, config.phase, config.inputs)
    test_bounds = Bounds(
        config.test_amplitude or config.amplitude,
        config.test_phase or config.phase,
        config.test_inputs or config.inputs,
    )
    extrapolates = test_bounds != training_bounds

    def sample(data, key) -> base.Episode:
        bounds = data if extrapolates else training_bounds
        amplitude_key, phase_key, inputs_key, noise_key = jax.random.split(key, 4)
        facts = draw_curve(config, bounds, amplitude_key, phase_key)
        return observe(config, bounds, facts, inputs_key, noise_key)

    def drift(data, task_key, position, examples_key) -> base.Episode:
        """Move amplitudes and phases on a straight line from each task of the path to the next."""
        bounds = data if extrapolates else training_bounds
        last = jnp.floor(position)
        keys = [jax.random.fold_in(task_key, last.astype(jnp.uint32) + step) for step in range(2)]
        ends = [draw_curve(config, bounds, *jax.random.split(key)) for key in keys]
        share = position - last
        facts = jax.tree.map(lambda old, new: (1 - share) * old + share * new, *ends)
        return observe(config, bounds, facts, *jax.random.split(examples_key))

    def draw(figure, episode: base.Episode, predictors) -> None:
        ends = [*training_bounds.inputs, *test_bounds.inputs]
        curve = functools.partial(evaluate_curve, **episode.facts)
        _curves.draw(figure, episode, predictors, curve, (min(ends), max(ends)))

    def find_ceiling(data, episodes: base.Episode):
        bounds = data if extrapolates else training_bounds
        amplitude, phase = ((float(pair[0]), float(pair[1])) for pair in (bounds.amplitude, bounds.phase))
        kind = _posterior.Kind(np.sin, amplitude, phase, (0.0, 0.0), 1.0)
        return _posterior.measure_curves([kind], config.noise, episodes)

    ceiling = find_ceiling if config.has_ceiling else None
    splits: dict[str, base.PyTree] = dict.fromkeys(("train", "validation", "test"), ())
    if extrapolates:
        splits = {name: to_arrays(test_bounds if name == "test" else training_bounds) for name in splits}
    problem = base.Problem(base.Spec((1,), 1, "numbers"), losses.regression())
    return base.TaskFamily(splits, sample, problem, draw, drift=drift, ceiling=ceiling)


def draw_curve(config: Config, bounds: Bounds, amplitude_key, phase_key) -> dict:
    """Draw the facts of one task."""
    shape = () if config.harmonics == 1 else (config.harmonics,)
    amplitude = _curves.draw_uniform(amplitude_key, shape, bounds.amplitude)
    if config.harmonics > 1:
        amplitude /= jnp.arange(1, config.harmonics + 1)
    return {"amplitude": amplitude, "phase": _curves.draw_uniform(phase_key, shape, bounds.phase)}


def observe(config: Config, bounds: Bounds, facts: dict, inputs_key, noise_key) -> base.Episode:
    """Draw the points of one task."""
    inputs = _curves.draw_uniform(inputs_key, (config.shots + config.queries, 1), bounds.inputs)
    targets = evaluate_curve(inputs, facts["amplitude"], facts["phase"])
    return _curves.to_episode(
        inputs, targets, config.shots, config.noise, config.query_noise, noise_key, facts
    )


def evaluate_curve(inputs: Float[Array, "example 1"], amplitude, phase) -> Float[Array, "example 1"]:
    """Return A·sin(x − φ) for a scalar amplitude and phase, or Σ_k A_k·sin(k·x − φ_k) for [harmonic] ones."""
    if jnp.ndim(amplitude) == 0:
        return amplitude * jnp.sin(inputs - phase)
    order = jnp.arange(1, amplitude.shape[0] + 1)[None]
    return jnp.sum(amplitude[None] * jnp.sin(order * inputs - phase[None]), axis=-1, keepdims=True)


def to_arrays(bounds: Bounds) -> Bounds:
    """Return the bounds as the data of a split."""
    return Bounds(*(jnp.array(pair) for pair in bounds))
