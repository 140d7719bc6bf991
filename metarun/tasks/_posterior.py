"""The exact posterior over curves of known kinds: what the best possible rule predicts from a few noisy points.

A kind of curve is y = scale · shape(x − center) + offset with independent uniform numbers, plus normal noise on the
support. Given center and offset, the likelihood of the scale is a normal distribution that its range cuts off, so its
integral and its mean have a closed form. Center and offset are summed over a grid. The posterior mean of the curve has
the lowest expected squared error of all rules that know how curves are drawn. All arrays are float64 on the host.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarun import base

Range = tuple[float, float]

AT_ONCE = 16  # episodes
# Smaller noise, and none, is taken for this. Where the points fix the curve the error is then next to zero.
LEAST_NOISE = 1e-3
SPACING = 0.75  # of a grid, in standard deviations of what the points tell of a number alone
COARSE, ZOOMS = 721, 8  # points of the first grid of centers, and how often it is refined around its peak
DENSE = 160  # points on each side of the peak, geometrically spaced
TINY = 1e-12


class Kind(NamedTuple):
    """Curves of one shape."""

    shape: Callable[[np.ndarray], np.ndarray]
    scale: Range
    center: Range
    offset: Range
    weight: float  # probability of this kind among all


class Points(NamedTuple):
    """The support and the query inputs of some episodes."""

    inputs: Float[np.ndarray, "episode point"]
    targets: Float[np.ndarray, "episode point"]
    queries: Float[np.ndarray, "episode query"]
    noise: float  # standard deviation of the noise on the targets


class Grid(NamedTuple):
    """Numbers that are summed over, with their weights; these add up to 1."""

    numbers: np.ndarray
    weights: np.ndarray


def measure_curves(kinds: Sequence[Kind], noise: float, episodes: base.Episode) -> dict[str, np.ndarray]:
    """Return {"loss": [episode]}: the squared error of the posterior mean on the queries.

    Args:
      noise: standard deviation of the noise on the support targets.
      episodes: inputs and targets [episode, point, 1].
    """
    losses = []
    for support, query in split_episodes(episodes):
        points = Points(support.inputs, support.targets, query.inputs, max(noise, LEAST_NOISE))
        losses.append(np.mean((predict_mean(kinds, points) - query.targets) ** 2, axis=-1))
    return {"loss": np.concatenate(losses)}


def split_episodes(episodes: base.Episode) -> Iterator[tuple[base.Examples, base.Examples]]:
    """Yield support and query of a few episodes at a time, in float64 and without the last axis."""
    for start in range(0, len(episodes.support.inputs), AT_ONCE):
        parts = [
            base.Examples(
                *(np.asarray(leaf)[start : start + AT_ONCE, :, 0].astype(np.float64) for leaf in examples)
            )
            for examples in (episodes.support, episodes.query)
        ]
        yield parts[0], parts[1]


def predict_mean(kinds: Sequence[Kind], points: Points) -> Float[np.ndarray, "episode query"]:
    """Return the posterior mean of the curve at the query inputs."""
    answers = [answer_kind(kind, points) for kind in kinds]
    levels = np.stack([level for level, _ in answers])
    shares = np.exp(levels - levels.max(axis=0))
    shares /= shares.sum(axis=0)
    return sum(share[:, None] * mean for share, (_, mean) in zip(shares, answers, strict=True))


def answer_kind(kind: Kind, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return the log evidence [episode] of one kind, up to a constant, and its posterior mean [episode, query]."""
    offsets = make_even_grid(kind.offset, points.noise / math.sqrt(points.inputs.shape[1]))
    centers = make_center_grid(kind, points)
    levels, scales = integrate_scale(kind, points, centers.numbers, offsets.numbers)
    with np.errstate(divide="ignore"):
        levels = levels + np.log(centers.weights)[..., None] + np.log(offsets.weights)
    highest = levels.max(axis=(1, 2))
    shares = np.exp(levels - highest[:, None, None])  # [episode, center, offset]
    total = shares.sum(axis=(1, 2))
    shares /= total[:, None, None]
    factors = (shares * scales).sum(axis=-1)
    shapes = kind.shape(points.queries[:, :, None] - centers.numbers[:, None, :])
    means = np.einsum("ec,eqc->eq", factors, shapes) + (shares.sum(axis=1) @ offsets.numbers)[:, None]
    return highest + np.log(total) + math.log(kind.weight), means


def integrate_scale(
    kind: Kind,
    points: Points,
    centers: Float[np.ndarray, "episode center"],
    offsets: Float[np.ndarray, "offset"],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log likelihood with the scale integrated out, and the mean scale: each [episode, center, offset]."""
    shapes = kind.shape(points.inputs[:, :, None] - centers[:, None, :])
    squares = np.maximum(np.einsum("epc,epc->ec", shapes, shapes), TINY)[..., None]
    products = np.einsum("epc,ep->ec", shapes, points.targets)[..., None]
    products = products - offsets * shapes.sum(axis=1)[..., None]
    rest = ((points.targets[:, :, None] - offsets) ** 2).sum(axis=1)[:, None, :]
    low, high = kind.scale
    if low == high:
        error = rest - 2 * low * products + low**2 * squares
        return -error / (2 * points.noise**2), np.full(error.shape, low)
    center, spread = products / squares, points.noise / np.sqrt(squares)
    level, mean = integrate_normal((low - center) / spread, (high - center) / spread)
    error = rest - products**2 / squares
    whole = level + np.log(spread * math.sqrt(2 * math.pi) / (high - low)) - error / (2 * points.noise**2)
    return whole, np.clip(center + spread * mean, low, high)


def integrate_normal(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log probability that a standard normal number lies between two bounds, and its mean there."""
    from scipy.special import log_ndtr

    flipped = low > 0  # the lower tail keeps its digits
    first, second = np.where(flipped, -high, low), np.where(flipped, -low, high)
    upper, lower = log_ndtr(second), log_ndtr(first)
    level = upper + np.log1p(-np.exp(np.minimum(lower - upper, -TINY)))
    densities = [np.exp(-(bound**2) / 2 - level) / math.sqrt(2 * math.pi) for bound in (first, second)]
    mean = densities[0] - densities[1]
    return level, np.where(flipped, -mean, mean)


def make_even_grid(bounds: Range, scale: float) -> Grid:
    """Return evenly spaced numbers between two bounds, SPACING · scale apart or less, for the trapezoid rule."""
    low, high = bounds
    if low == high:
        return Grid(np.array([low]), np.ones(1))
    count = max(8, math.ceil((high - low) / (SPACING * scale)))
    numbers = np.linspace(low, high, count + 1)
    return Grid(numbers, weigh(numbers))


def weigh(numbers: Float[np.ndarray, "*episode number"]) -> Float[np.ndarray, "*episode number"]:
    """Return the weights of the trapezoid rule for ascending numbers, divided by their range."""
    gaps = np.diff(numbers, axis=-1)
    none = np.zeros((*numbers.shape[:-1], 1))
    halves = np.concatenate([none, gaps], axis=-1) + np.concatenate([gaps, none], axis=-1)
    return halves / (2 * (numbers[..., -1:] - numbers[..., :1]))


def make_center_grid(kind: Kind, points: Points) -> Grid:
    """Return centers [episode, center]: evenly spaced, and dense around the likeliest one if there is no offset."""
    low, high = kind.center
    count = len(points.inputs)
    if low == high:
        return Grid(np.full((count, 1), low), np.ones((count, 1)))
    if kind.offset[0] != kind.offset[1]:
        slope = max(map(abs, kind.scale)) * find_steepness(kind, points)
        even = make_even_grid(kind.center, points.noise / (slope * math.sqrt(points.inputs.shape[1])))
        return Grid(*(np.broadcast_to(leaf, (count, len(leaf))) for leaf in even))
    step = (high - low) / (COARSE - 1)
    coarse = np.broadcast_to(np.linspace(low, high, COARSE), (count, COARSE))
    peak = find_peak(kind, points, coarse, step)
    distances = np.concatenate([[0.0], np.geomspace(1e-9, 1.0, DENSE)]) * (high - low)
    near = np.clip(np.concatenate([peak - distances, peak + distances], axis=-1), low, high)
    numbers = np.sort(np.concatenate([coarse, near], axis=-1), axis=-1)
    return Grid(numbers, weigh(numbers))


def find_steepness(kind: Kind, points: Points) -> float:
    """Return the largest slope of the shape at all distances between points and centers."""
    ends = points.inputs.min() - kind.center[1], points.inputs.max() - kind.center[0]
    distances = np.linspace(*ends, COARSE)
    return float(np.abs(np.gradient(kind.shape(distances), distances)).max())


def find_peak(kind: Kind, points: Points, grid: np.ndarray, step: float) -> Float[np.ndarray, "episode 1"]:
    """Return the likeliest center: the best of a grid, refined ZOOMS times between its neighbours."""
    offset, numbers = np.array(kind.offset[:1]), grid
    for _ in range(ZOOMS):
        levels = integrate_scale(kind, points, numbers, offset)[0][..., 0]
        best = np.take_along_axis(numbers, levels.argmax(axis=1)[:, None], axis=1)
        numbers = np.clip(best + step * np.linspace(-1, 1, 33), *kind.center)
        step /= 16
    return best
