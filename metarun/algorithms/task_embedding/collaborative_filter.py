"""Collaborative filtering: a matrix of scores with gaps, tasks × probes, as the product of two thin ones.

    s_tp ≈ b_p + σ · u_t · v_p,    min Σ_{(t,p) observed} ((s_tp − b_p)/σ − u_t · v_p)² + λ (Σ_t ‖u_t‖² + Σ_p ‖v_p‖²)

by alternating least squares (Hu, Koren, Volinsky 2008; Zhou et al. 2008). b_p is the mean of a probe's observed scores,
σ the deviation of all observed scores. A new task's u follows from any few of its scores, by least squares.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

ROUNDS = 30  # of alternating least squares


class Factors(NamedTuple):
    """The probes' half of the factorisation."""

    probes: Float[Array, "probe embed"]
    means: Float[Array, "probe"]
    deviation: Float[Array, ""]


def solve(
    factors: Float[Array, "known embed"],
    scores: Float[Array, "known"],
    observed: Float[Array, "known"],
    ridge: float | Array,
) -> Float[Array, "embed"]:
    """Return the vector u with the least Σ observed · (scores − factors · u)² + ridge · ‖u‖²."""
    weighted = factors * observed[:, None]
    matrix = weighted.T @ factors + ridge * jnp.eye(factors.shape[1], dtype=factors.dtype)
    return jnp.linalg.solve(matrix, weighted.T @ scores)


def factorise(
    key: PRNGKeyArray,
    scores: Float[Array, "task probe"],
    observed: Float[Array, "task probe"],
    dimensions: int,
    ridge: float | Array,
) -> Factors:
    """Fit the factors of the probes.

    Args:
      scores: entries where `observed` is 0 do not matter.
      observed: 1 where a score is used, else 0.
    """
    counts = jnp.maximum(observed.sum(axis=0), 1)
    means = (observed * scores).sum(axis=0) / counts
    centred = observed * (scores - means[None])
    deviation = jnp.sqrt(jnp.square(centred).sum() / jnp.maximum(observed.sum(), 1))
    deviation = jnp.maximum(deviation, jnp.finfo(scores.dtype).tiny)
    known = centred / deviation
    rows = jax.vmap(solve, in_axes=(None, 0, 0, None))

    def alternate(_, probes):
        tasks = rows(probes, known, observed, ridge)
        return rows(tasks, known.T, observed.T, ridge)

    start = jax.random.normal(key, (scores.shape[1], dimensions), scores.dtype) * dimensions**-0.5
    return Factors(jax.lax.fori_loop(0, ROUNDS, alternate, start), means, deviation)


def place(factors: Factors, scores: Float[Array, "known"], ridge: float | Array) -> Float[Array, "embed"]:
    """Return a task's vector from its scores by the first probes, as many as there are scores."""
    count = len(scores)
    known = (scores - factors.means[:count]) / factors.deviation
    return solve(factors.probes[:count], known, jnp.ones_like(known), ridge)


def draw_observed(key: PRNGKeyArray, tasks: int, probes: int, count: int) -> Float[Array, "task probe"]:
    """Draw 1 at `count` random probes of every task, 0 elsewhere."""
    ranks = jax.random.uniform(key, (tasks, probes)).argsort(axis=1).argsort(axis=1)
    return (ranks < count).astype(jnp.float32)
