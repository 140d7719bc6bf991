"""What the best possible rule knows of a hyperplane: draws from the posterior given clean labels, in numpy.

Given the support, every normal vector that separates it is equally likely (for a given offset). A chain walks over
these: along a random great circle through the current normal, the normals that separate the support with the margin
form an arc around it, and the next one is drawn uniformly from this arc. That is hit-and-run sampling (Smith 1984,
Operations Research 32:1296), whose stationary distribution is the uniform one; the ends of the arc have a closed form.
The offset is drawn from its distribution given the normal, on a grid. The chain starts at the true hyperplane, which is
itself a draw from the posterior, and forgets it during WARM_UP steps.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

WARM_UP, STEPS, EVERY = 300, 3000, 3  # steps that are left out, steps that count, steps between two answers
CELLS = 32  # of the grid from which an offset is drawn
PRIOR_COUNTS = 0.5  # of answers for each class: no class has probability zero because no draw chose it


class Separation(NamedTuple):
    """Points of some episodes with their sides."""

    points: Float[np.ndarray, "episode point feature"]
    sides: Float[np.ndarray, "episode point"]  # −1 or 1
    margin: float
    largest_offset: float


class State(NamedTuple):
    """Where the chains are."""

    normals: Float[np.ndarray, "episode feature"]
    offsets: Float[np.ndarray, "episode"]
    along: Float[np.ndarray, "episode point"]  # the products of points and normals


def answer(
    support: Separation,
    start: tuple[np.ndarray, np.ndarray],
    queries: Float[np.ndarray, "episode query feature"],
    seed: int = 0,
) -> Float[np.ndarray, "episode query 2"]:
    """Return the posterior probability of the lower and the upper class for each query.

    Args:
      start: the true normals [episode, feature] and offsets [episode].
    """
    generator = np.random.default_rng(seed)
    normals, offsets = start
    state = State(normals, offsets, multiply(support.points, normals))
    scores = np.zeros((*queries.shape[:2], 2))
    for step in range(WARM_UP + STEPS):
        state = turn(support, state, generator)
        if support.largest_offset:
            state = shift(support, state, generator)
        if step >= WARM_UP and step % EVERY == 0:
            scores += judge(support, state, queries)
    scores += PRIOR_COUNTS
    return scores / scores.sum(axis=-1, keepdims=True)


def multiply(points: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the products of points [episode, point, feature] with one vector of each episode: [episode, point]."""
    return np.matmul(points, vectors[..., None])[..., 0]


def turn(support: Separation, state: State, generator: np.random.Generator) -> State:
    """Return the state after one step along a random great circle."""
    tangent = generator.standard_normal(state.normals.shape)
    tangent -= (tangent * state.normals).sum(axis=1, keepdims=True) * state.normals
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    across = multiply(support.points, tangent)
    low, high = find_arc(support, state, across)
    angle = generator.uniform(low, high)[:, None]
    normals = np.cos(angle) * state.normals + np.sin(angle) * tangent
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return State(normals, state.offsets, np.cos(angle) * state.along + np.sin(angle) * across)


def find_arc(support: Separation, state: State, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the arc of angles around zero at which the normal separates the support.

    A point allows the angles at which along · cos + across · sin, times its side, is at least its bound: an arc around
    atan2(across, along).
    """
    along, across = support.sides * state.along, support.sides * across
    bounds = support.margin + support.sides * state.offsets[:, None]
    bounds = np.minimum(bounds, along)  # rounding is no violation
    lengths = np.maximum(np.hypot(along, across), 1e-12)
    halves = np.arccos(np.clip(bounds / lengths, -1.0, 1.0))
    middles = np.arctan2(across, along)
    free = bounds <= -lengths
    low = np.where(free, -np.pi, middles - halves).max(axis=1)
    high = np.where(free, np.pi, middles + halves).min(axis=1)
    return np.minimum(low, 0.0), np.maximum(high, 0.0)


def shift(support: Separation, state: State, generator: np.random.Generator) -> State:
    """Return the state with an offset that is drawn given the normals."""
    upper = np.where(support.sides > 0, state.along, np.inf).min(axis=1) - support.margin
    lower = np.where(support.sides < 0, state.along, -np.inf).max(axis=1) + support.margin
    high, low = np.minimum(upper, support.largest_offset), np.maximum(lower, -support.largest_offset)
    width = np.maximum(high - low, 0.0)[:, None] / CELLS
    cells = low[:, None] + width * (np.arange(CELLS) + 0.5)
    shots = support.points.shape[1] // 2
    logs = -shots * sum(find_log_shares(support.margin, cells))
    totals = np.cumsum(np.exp(logs - logs.max(axis=1, keepdims=True)), axis=1)
    chosen = (totals < generator.uniform(size=(len(low), 1)) * totals[:, -1:]).sum(axis=1)
    inside = generator.uniform(-0.5, 0.5, len(low)) * width[:, 0]
    return state._replace(offsets=cells[np.arange(len(low)), chosen] + inside)


def find_log_shares(margin: float, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log probabilities that a standard normal point lies below and above the hyperplane and its margin."""
    from scipy.special import log_ndtr

    return log_ndtr(offsets - margin), log_ndtr(-offsets - margin)


def judge(support: Separation, state: State, queries: np.ndarray) -> np.ndarray:
    """Return the densities of the queries in the lower and the upper class under this hyperplane, up to a factor.

    The factor is the normal density, divided by the share of points at offset zero.
    """
    distances = multiply(queries, state.normals) - state.offsets[:, None]
    base_share = find_log_shares(support.margin, np.zeros(1))[0]
    shares = find_log_shares(support.margin, state.offsets)
    below, above = (np.exp(base_share - share)[:, None] for share in shares)
    is_below, is_above = distances <= -support.margin, distances >= support.margin
    return np.stack([is_below * below, is_above * above], axis=-1)
