"""Classes as points in the space of features: their means, and how near an example is to each."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metarun import options

# The factor of cosines where none is given. Gidaris, Komodakis 2018 (1804.09458) learn the factor and begin here.
COSINE_SCALE = 10.0


def class_means(
    features: Float[Array, "example feature"], labels: Int[Array, "example"], ways: int
) -> Float[Array, "{ways} feature"]:
    """Return the mean feature of each class; zeros for a class without examples. Shots may differ between classes."""
    members = jax.nn.one_hot(labels, ways, dtype=features.dtype)  # [example, way]
    counts = jnp.maximum(members.sum(axis=0), 1)
    return (members / jnp.expand_dims(counts, 0)).T @ features


def squared_distances(
    features: Float[Array, "example feature"], points: Float[Array, "point feature"]
) -> Float[Array, "example point"]:
    """Return ‖f − p‖² for every pair.

    It takes differences, because products would lose the digits that near points have in common.
    """
    return jnp.square(features[:, None, :] - points[None, :, :]).sum(axis=-1)


def cosines(
    features: Float[Array, "example feature"], points: Float[Array, "point feature"]
) -> Float[Array, "example point"]:
    """Return the cosine of the angle of every pair; 0 if one of the two vectors is zero."""
    return unit(features) @ unit(points).T


def unit(vectors: Float[Array, "example feature"]) -> Float[Array, "example feature"]:
    """Return the vectors at length 1.

    A vector shorter than 1e-12 is divided by 1e-12, so that zero stays zero and its derivative is finite.
    """
    squares = jnp.square(vectors).sum(axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def similarities(
    features: Float[Array, "example feature"],
    points: Float[Array, "point feature"],
    config: options.Similarity,
) -> Float[Array, "example point"]:
    """Return logits: −scale · ‖f − p‖², or scale · cos(f, p); see `options.Similarity`."""
    if config.distance == "euclidean":
        return -(1.0 if config.scale is None else config.scale) * squared_distances(features, points)
    return (COSINE_SCALE if config.scale is None else config.scale) * cosines(features, points)
