"""Regression to sine curves of random amplitude and phase, from a few points.

Finn et al. 2017, arXiv 1703.03400, section 5.1: y = A·sin(x − φ) with A ~ U[0.1, 5], φ ~ U[0, π] and
x ~ U[−5, 5]; every task is drawn anew, so that the three splits differ in nothing but their random keys.

Ours beyond the paper: `harmonics` H gives y = Σ_k A_k·sin(k·x − φ_k), k = 1 … H, where each φ_k is drawn as φ and
each A_k as A, then divided by k; `test_amplitude`, `test_phase` and `test_inputs` are the ranges of the test split,
support and query alike, where those are to reach beyond training. Validation is drawn as training is.
"""

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base, losses
from metarun.ranges import AtLeast
from metarun.tasks import _curves

RANGES = ("amplitude", "phase", "inputs")  # each has a test_... beside it


@dataclass(frozen=True)
class Config:
    """The distribution of curves and how many points are seen of each."""

    shots: Annotated[int, AtLeast(1)] = 10  # support points, K in the papers
    queries: Annotated[int, AtLeast(1)] = 10  # query points
    amplitude: tuple[float, float] = (0.1, 5.0)  # A, lowest and highest
    phase: tuple[float, float] = (0.0, math.pi)  # φ in radians, lowest and highest
    inputs: tuple[float, float] = (-5.0, 5.0)  # x, lowest and highest
    noise: Annotated[float, AtLeast(0)] = 0.0  # standard deviation added to the support targets
    query_noise: bool = False  # whether the noise is added to the query targets too
    harmonics: Annotated[int, AtLeast(1)] = 1  # H, sine curves in the sum
    test_amplitude: tuple[float, float] | None = None  # A of the test split; null: as in training
    test_phase: tuple[float, float] | None = None  # φ of the test split; null: as in training
    test_inputs: tuple[float, float] | None = None  # x of the test split; null: as in training

    def __post_init__(self):
        for field in (*RANGES, *(f"test_{name}" for name in RANGES)):
            lowest, highest = getattr(self, field) or (0.0, 0.0)
            if lowest > highest:
                raise ValueError(f"{field} starts at {lowest}, above its end {highest}")


class Bounds(NamedTuple):
    """Lowest and highest of what is drawn for a task: numbers, or arrays [2] where the test split has its own."""

    amplitude: tuple[float, float] | Float[Array, "2"]
    phase: tuple[float, float] | Float[Array, "2"]
    inputs: tuple[float, float] | Float[Array, "2"]


def build(config: Config) -> base.TaskFamily:
    """The family; its facts are `amplitude` and `phase`, each a scalar, or [harmonic] where there are several."""
    trained = Bounds(config.amplitude, config.phase, config.inputs)
    tested = Bounds(
        config.test_amplitude or config.amplitude,
        config.test_phase or config.phase,
        config.test_inputs or config.inputs,
    )
    extrapolates = tested != trained

    def sample(data, key) -> base.Episode:
        bounds = data if extrapolates else trained
        amplitude_key, phase_key, inputs_key, noise_key = jax.random.split(key, 4)
        facts = choose(bounds, amplitude_key, phase_key)
        return observe(bounds, facts, inputs_key, noise_key)

    def drift(data, task_key, position, examples_key) -> base.Episode:
        """Amplitudes and phases are on a straight line from each task of the path to the next."""
        bounds = data if extrapolates else trained
        last = jnp.floor(position)
        ends = [
            choose(bounds, *jax.random.split(jax.random.fold_in(task_key, last.astype(jnp.uint32) + step)))
            for step in range(2)
        ]
        share = position - last
        facts = jax.tree.map(lambda old, new: (1 - share) * old + share * new, *ends)
        return observe(bounds, facts, *jax.random.split(examples_key))

    def choose(bounds: Bounds, amplitude_key, phase_key) -> dict:
        shape = () if config.harmonics == 1 else (config.harmonics,)
        amplitude = _curves.uniform(amplitude_key, shape, bounds.amplitude)
        if config.harmonics > 1:
            amplitude /= jnp.arange(1, config.harmonics + 1)
        return {"amplitude": amplitude, "phase": _curves.uniform(phase_key, shape, bounds.phase)}

    def observe(bounds: Bounds, facts: dict, inputs_key, noise_key) -> base.Episode:
        inputs = _curves.uniform(inputs_key, (config.shots + config.queries, 1), bounds.inputs)
        targets = curve(inputs, facts["amplitude"], facts["phase"])
        return _curves.to_episode(
            inputs, targets, config.shots, config.noise, config.query_noise, noise_key, facts
        )

    def draw(figure, episode: base.Episode, predictors) -> None:
        ends = [*trained.inputs, *tested.inputs]
        _curves.draw(
            figure,
            episode,
            predictors,
            lambda inputs: curve(inputs, episode.facts["amplitude"], episode.facts["phase"]),
            (min(ends), max(ends)),
        )

    splits: dict[str, base.PyTree] = dict.fromkeys(("train", "validation", "test"), ())
    if extrapolates:
        splits = {name: to_arrays(tested if name == "test" else trained) for name in splits}
    return base.TaskFamily(splits, sample, losses.regression(), base.Spec((1,), 1), draw, drift=drift)


def curve(inputs: Float[Array, "example 1"], amplitude, phase) -> Float[Array, "example 1"]:
    """A·sin(x − φ) of a scalar amplitude and phase, or Σ_k A_k·sin(k·x − φ_k) of those [harmonic]."""
    if jnp.ndim(amplitude) == 0:
        return amplitude * jnp.sin(inputs - phase)
    order = jnp.arange(1, amplitude.shape[0] + 1)[None]
    return jnp.sum(amplitude[None] * jnp.sin(order * inputs - phase[None]), axis=-1, keepdims=True)


def to_arrays(bounds: Bounds) -> Bounds:
    """The bounds as data of a split."""
    return Bounds(*(jnp.array(pair) for pair in bounds))
