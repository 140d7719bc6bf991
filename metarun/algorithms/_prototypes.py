"""Classes as points in the space of features: their means, and how near an example is to each."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metarun import base

COSINE_SCALE = (
    10.0  # where the scale of cosines is learned it begins at this (Gidaris, Komodakis 2018, 1804.09458)
)


def ways_of(objective: base.Objective, name: str) -> int:
    """The number of classes of an episode.

    Raises:
      ValueError: the family is no classification.
    """
    if objective.ways is None:
        raise ValueError(
            f"{name} compares examples with classes, and this task family has none",
            "choose a task family of classification, or another algorithm",
        )
    return objective.ways


def class_means(
    features: Float[Array, "example feature"], labels: Int[Array, "example"], ways: int
) -> Float[Array, "{ways} feature"]:
    """The mean of the features of each class, which may have different numbers of examples; zeros where it has none."""
    members = jax.nn.one_hot(labels, ways, dtype=features.dtype)  # [example, way]
    counts = jnp.maximum(members.sum(axis=0), 1)
    return (members / jnp.expand_dims(counts, 0)).T @ features


def squared_distances(
    features: Float[Array, "example feature"], points: Float[Array, "point feature"]
) -> Float[Array, "example point"]:
    """‖f − p‖² of every pair, by differences: products would lose the digits that near points have in common."""
    return jnp.square(features[:, None, :] - points[None, :, :]).sum(axis=-1)


def cosines(
    features: Float[Array, "example feature"], points: Float[Array, "point feature"]
) -> Float[Array, "example point"]:
    """The cosine of the angle of every pair; 0 where one of them is zero."""
    return unit(features) @ unit(points).T


def unit(vectors: Float[Array, "example feature"]) -> Float[Array, "example feature"]:
    """The vectors at length 1; zero where the length is, to 1e-12, zero, and so is the derivative."""
    squares = jnp.square(vectors).sum(axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def similarities(
    features: Float[Array, "example feature"],
    points: Float[Array, "point feature"],
    distance: Literal["euclidean", "cosine"],
    scale: float | None,
) -> Float[Array, "example point"]:
    """Logits: −scale · ‖f − p‖², or scale · cos(f, p). `scale` None is 1 and COSINE_SCALE."""
    if distance == "euclidean":
        return -(scale or 1.0) * squared_distances(features, points)
    return (scale or COSINE_SCALE) * cosines(features, points)
