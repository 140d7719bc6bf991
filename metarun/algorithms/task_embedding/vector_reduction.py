"""Vectors of many tasks in closed form: principal components, and the centres of k-means."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

# The least variance of a component, as a share of the first one's. Below it there is only float32 rounding.
LEAST_VARIANCE = 1e-6
ROUNDS = 50  # of Lloyd's algorithm; a few hundred tasks settle in fewer


class Components(NamedTuple):
    """A projection: (vector − mean) · directions."""

    mean: Float[Array, "feature"]
    directions: Float[Array, "feature embed"]
    # Share of the variance that each component holds, in [0, 1], falling; also where its direction is zero.
    shares: Float[Array, "embed"]


class Clusters(NamedTuple):
    """Spherical clusters of one size."""

    centres: Float[Array, "cluster embed"]
    # The variance of a coordinate around its centre: the mean over the coordinates that differ at all.
    variance: Float[Array, ""]


def fit_components(
    vectors: Float[Array, "task feature"], dimensions: int, variance: float | None, whiten: bool
) -> Components:
    """Fit principal components of the tasks, by the eigenvectors of their Gram matrix [task, task].

    That is cheap where vectors are much longer than there are tasks. Shapes are static: there are always `dimensions`
    directions, and those that the tasks do not have, or that lie beyond the share `variance`, are zero.

    Args:
      variance: a share in (0, 1]: the fewest components that hold it are kept; None: all.
      whiten: whether each component is scaled to a variance of 1 over these tasks.
    """
    mean = vectors.mean(axis=0)
    centred = vectors - mean[None]
    values, left = jnp.linalg.eigh(centred @ centred.T)  # rising
    count = min(dimensions, len(vectors))
    values, left = jnp.maximum(values[::-1], 0), left[:, ::-1]
    shares = values / jnp.maximum(values.sum(), jnp.finfo(values.dtype).tiny)
    kept = values > LEAST_VARIANCE * values[0]
    if variance is not None:
        kept &= jnp.cumsum(shares) - shares < variance
    scales = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, values, 1)), 0)
    directions = (centred.T @ left[:, :count]) * scales[None, :count]
    if whiten:
        directions *= scales[None, :count] * len(vectors) ** 0.5
    largest = jnp.take_along_axis(directions, jnp.abs(directions).argmax(axis=0)[None], axis=0)
    directions *= jnp.where(largest < 0, -1.0, 1.0)  # else their signs depend on the machine
    rest = dimensions - count
    return Components(mean, jnp.pad(directions, ((0, 0), (0, rest))), jnp.pad(shares[:count], (0, rest)))


def project(components: Components, vector: Float[Array, "feature"]) -> Float[Array, "embed"]:
    """Return one task's vector in the directions of `components`."""
    return (vector - components.mean) @ components.directions


def fit_clusters(key: PRNGKeyArray, vectors: Float[Array, "task embed"], count: int) -> Clusters:
    """Fit k-means: Lloyd's algorithm from the start of k-means++ (Arthur and Vassilvitskii 2007).

    There must be `count` tasks at least. A centre to which no task belongs stays where it is.
    """

    def measure_squares(centres):  # -> [task, cluster]
        return jnp.square(vectors[:, None] - centres[None]).sum(axis=-1)

    def spread(index, centres):
        """Draw the next centre: a task, more likely the further it is from the centres before it."""
        known = jnp.arange(count)[None] < index
        nearest = jnp.where(known, measure_squares(centres), jnp.inf).min(axis=1)
        return centres.at[index].set(
            vectors[jax.random.categorical(jax.random.fold_in(key, index), jnp.log(nearest))]
        )

    def settle(_, centres):
        members = jax.nn.one_hot(measure_squares(centres).argmin(axis=1), count, dtype=vectors.dtype)
        sizes = members.sum(axis=0)[:, None]
        return jnp.where(sizes > 0, members.T @ vectors / jnp.maximum(sizes, 1), centres)

    first = vectors[jax.random.randint(key, (), 0, len(vectors))]
    centres = jax.lax.fori_loop(1, count, spread, jnp.tile(first, (count, 1)))
    centres = jax.lax.fori_loop(0, ROUNDS, settle, centres)
    used = jnp.any(vectors != vectors[:1], axis=0).sum()  # components beyond those of the tasks are zero
    return Clusters(centres, measure_squares(centres).min(axis=1).mean() / jnp.maximum(used, 1))


def compute_membership(
    clusters: Clusters, vector: Float[Array, "embed"], hard: bool
) -> Float[Array, "cluster"]:
    """Return how much a vector belongs to each cluster; the sum is 1.

    Hard: 1 for the nearest centre. Soft: the posterior under normal distributions around the centres, which are
    equally likely and all have the mean variance.
    """
    squares = jnp.square(vector[None] - clusters.centres).sum(axis=-1)
    if hard:
        return jax.nn.one_hot(squares.argmin(), len(squares), dtype=vector.dtype)
    return jax.nn.softmax(-squares / (2 * jnp.maximum(clusters.variance, jnp.finfo(vector.dtype).tiny)))
