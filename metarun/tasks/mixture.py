"""Regression to curves of several kinds mixed in one distribution: sine, line, quadratic, |x|, tanh.

Vuorio et al. 2019, arXiv 1910.13616 (MMAML), section 5.1, with the ranges and the split into 5 support and 5 query
points of the authors' code. Every task is one of these modes, all equally likely:

    sinusoid    A·sin(x − φ)       A ~ U[0.1, 5], φ ~ U[0, π]
    line        a·x + b            a ~ U[−3, 3], b ~ U[−3, 3]
    quadratic   ±q·(x − c)² + b    q ~ U[0.02, 0.15], either sign, c ~ U[−3, 3], b ~ U[−3, 3]
    absolute    a·|x − c| + b      a, b, c as above
    tanh        a·tanh(x − c) + b  a, b, c as above

with x ~ U[−5, 5]. All targets have noise of deviation 0.3, those of the query too, so that no learner's squared error
can be below 0.09 in expectation; the ceiling beside a table is that of the posterior mean over all modes and their
numbers (`_posterior`). The authors' batches hold every mode equally often; here the modes of a step's tasks are drawn
independently. Every task is drawn anew, so that the splits differ in nothing but their random keys.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarun import base, losses
from metarun.ranges import AtLeast
from metarun.tasks import _curves, _posterior

Mode = Literal["sinusoid", "line", "quadratic", "absolute", "tanh"]
LEAST_NOISE = 0.05  # below, the grid of the posterior would be too large
RANGES = ("amplitude", "phase", "slope", "curvature", "center", "offset", "inputs")


@dataclass(frozen=True)
class Config:
    """Which curves are mixed, and how many points of each are seen."""

    modes: tuple[Mode, ...] = ("sinusoid", "line", "quadratic", "absolute", "tanh")  # all equally likely
    shots: Annotated[int, AtLeast(1)] = 5  # support points
    queries: Annotated[int, AtLeast(1)] = 5  # query points
    noise: Annotated[float, AtLeast(0)] = 0.3  # standard deviation of the noise on the support targets
    query_noise: bool = True  # whether the query targets have noise too
    inputs: tuple[float, float] = (-5.0, 5.0)  # x, lowest and highest
    amplitude: tuple[float, float] = (0.1, 5.0)  # A of the sinusoid, lowest and highest
    phase: tuple[float, float] = (0.0, math.pi)  # φ of the sinusoid in radians, lowest and highest
    slope: tuple[float, float] = (-3.0, 3.0)  # a of line, absolute and tanh, lowest and highest
    curvature: tuple[float, float] = (0.02, 0.15)  # q of the quadratic before its sign, lowest and highest
    center: tuple[float, float] = (-3.0, 3.0)  # c of quadratic, absolute and tanh, lowest and highest
    offset: tuple[float, float] = (-3.0, 3.0)  # b of all but the sinusoid, lowest and highest

    def __post_init__(self):
        if not self.modes:
            raise ValueError("modes is empty", "name at least one mode")
        if len(set(self.modes)) < len(self.modes):
            raise ValueError("modes names one mode twice", "name each mode once: all are equally likely")
        for field in RANGES:
            lowest, highest = getattr(self, field)
            if lowest > highest:
                raise ValueError(f"{field} starts at {lowest}, above its end {highest}")

    @property
    def has_ceiling(self) -> bool:
        """Whether the best possible error is known: that of the posterior mean, if the noise spreads the posterior."""
        return self.noise >= LEAST_NOISE


# The shape of a curve, which is scale · shape(x − center) + offset.
SHAPES = {
    "sinusoid": jnp.sin,
    "line": lambda x: x,
    "quadratic": jnp.square,
    "absolute": jnp.abs,
    "tanh": jnp.tanh,
}
NUMPY_SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # the same, on the host
    "sinusoid": np.sin,
    "line": lambda x: x,
    "quadratic": np.square,
    "absolute": np.abs,
    "tanh": np.tanh,
}
# Properties that modes have in common: the concepts of a knowledge graph.
PROPERTIES = {
    "polynomial": ("line", "quadratic"),
    "monotone": ("line", "tanh"),
    "symmetric": ("quadratic", "absolute"),  # about a center
    "bounded": ("sinusoid", "tanh"),
}


def build(config: Config) -> base.TaskFamily:
    """Build the family. Its facts are `mode`, int32, the place in `config.modes`, and `scale`, `center`, `offset`.

    Its groups are the modes, and its relations are the properties that modes have in common. All facts are scalars: the
    curve is scale · shape(x − center) + offset.
    """
    shapes = [SHAPES[mode] for mode in config.modes]
    bounds = jnp.array([find_bounds(mode, config) for mode in config.modes])
    flips = jnp.array([mode == "quadratic" for mode in config.modes])  # half of its tasks open downwards

    def curve(facts, inputs: Float[Array, "example 1"]) -> Float[Array, "example 1"]:
        shape = jax.lax.switch(facts["mode"], shapes, inputs - facts["center"])
        return facts["scale"] * shape + facts["offset"]

    def sample(data, key) -> base.Episode:
        mode_key, shape_key, sign_key, inputs_key, noise_key = jax.random.split(key, 5)
        mode = jax.random.randint(mode_key, (), 0, len(shapes))
        scale, center, offset = _curves.draw_uniform(shape_key, (3,), bounds[mode].T)
        scale = jnp.where(flips[mode] & jax.random.bernoulli(sign_key), -scale, scale)
        facts = {"mode": mode, "scale": scale, "center": center, "offset": offset}
        inputs = _curves.draw_uniform(inputs_key, (config.shots + config.queries, 1), config.inputs)
        targets = curve(facts, inputs)
        return _curves.to_episode(
            inputs, targets, config.shots, config.noise, config.query_noise, noise_key, facts
        )

    def draw(figure, episode: base.Episode, predictors) -> None:
        title = f"One task of the test split: {config.modes[int(episode.facts['mode'])]}"
        _curves.draw(
            figure, episode, predictors, lambda inputs: curve(episode.facts, inputs), config.inputs, title
        )

    def find_ceiling(data, episodes: base.Episode):
        return _posterior.measure_curves(list_kinds(config), config.noise, episodes)

    ceiling = find_ceiling if config.has_ceiling else None
    splits = dict.fromkeys(("train", "validation", "test"), ())
    groups = base.Groups(config.modes, lambda facts: facts["mode"])
    spec = base.Spec((1,), 1, "numbers")
    problem = base.Problem(spec, losses.regression(), relations=relate(config.modes))
    return base.TaskFamily(splits, sample, problem, draw, groups, ceiling=ceiling)


def list_kinds(config: Config) -> list[_posterior.Kind]:
    """Return the kinds of curves of which the posterior is a mixture; a quadratic that opens downwards is its own."""
    kinds = []
    for mode in config.modes:
        scale, center, offset = find_bounds(mode, config)
        signs = (1, -1) if mode == "quadratic" else (1,)
        for sign in signs:
            low, high = sorted((sign * scale[0], sign * scale[1]))
            weight = 1 / (len(config.modes) * len(signs))
            kinds.append(_posterior.Kind(NUMPY_SHAPES[mode], (low, high), center, offset, weight))
    return kinds


def relate(modes: tuple[str, ...]) -> base.Relations:
    """Relate each mode to those of its PROPERTIES that another mode of the mixture has too."""
    shared = {name: set(owners) & set(modes) for name, owners in PROPERTIES.items()}
    shared = {name: owners for name, owners in shared.items() if len(owners) > 1}
    edges = tuple(
        (place, len(modes) + concept)
        for concept, owners in enumerate(shared.values())
        for place, mode in enumerate(modes)
        if mode in owners
    )
    return base.Relations((*modes, *shared), len(modes), edges, lambda facts: facts["mode"], "tasks")


def find_bounds(mode: str, config: Config) -> tuple[tuple[float, float], ...]:
    """Return the lowest and highest scale, center and offset of a mode."""
    zero = (0.0, 0.0)
    match mode:
        case "sinusoid":
            return config.amplitude, config.phase, zero
        case "line":
            return config.slope, zero, config.offset
        case "quadratic":
            return config.curvature, config.center, config.offset
    return config.slope, config.center, config.offset
