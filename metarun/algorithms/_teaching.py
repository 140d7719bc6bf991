"""How far a student is from its teachers on the same examples, and how little of a support it may see."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metarun import base, errors
from metarun.algorithms import _prototypes
from metarun.base import PyTree


def output_distance(
    objective: base.Objective,
    student: Float[Array, "*batch output"],
    teachers: Float[Array, "member *batch output"],
    targets: PyTree,
    temperature: float,
) -> Float[Array, ""]:
    """T² KL(mean_m softmax(t_m / T) ‖ softmax(s / T)) of logits, the mean over what the objective counts.

    Of numbers, the mean squared error to the mean of the teachers. The targets only say which it is, by their dtype.
    """
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        return jnp.square(student - teachers.mean(axis=0)).mean()
    taught = jax.nn.softmax(teachers / temperature).mean(axis=0)
    log_taught, log_student = jnp.log(taught + 1e-12), jax.nn.log_softmax(student / temperature)
    divergence = (taught * (log_taught - log_student)).sum(axis=-1)
    counted = counts(objective, student, targets)
    return temperature**2 * jnp.sum(jnp.where(counted, divergence, 0.0)) / jnp.sum(counted)


def counts(
    objective: base.Objective, logits: Float[Array, "*batch output"], targets
) -> Bool[Array, "*batch"]:
    """Which rows of logits the loss depends on: all of a classification, the tokens of a sentence but no padding.

    At logits of zero the derivative of a cross-entropy by a row that counts is nowhere zero.
    """
    return jnp.any(jax.grad(objective.loss)(jnp.zeros_like(logits), targets) != 0, axis=-1)


def feature_distance(
    student: Float[Array, "*batch feature"], teachers: list[Float[Array, "member *batch wide"]]
) -> Float[Array, ""]:
    """1/n² ‖G_s − G_t‖², the mean over the teachers: the similarity-preserving loss of Tung and Mori 2019 (1907.09682).

    G is F·Fᵀ of the n examples, each row at length 1: features of any two widths are compared, and nothing is learned
    for it.
    """
    own = gram(student)
    distances = [jnp.square(jax.vmap(gram)(part) - own[None]).mean(axis=(1, 2)) for part in teachers]
    return jnp.concatenate(distances).mean()


def gram(features: Float[Array, "*batch feature"]) -> Float[Array, "example example"]:
    """The scalar products of all pairs of rows, each row of products at length 1."""
    rows = features.reshape(-1, features.shape[-1])
    return _prototypes.unit(rows @ rows.T)


def few(support: base.Examples, shots: int | None, ways: int | None) -> base.Examples:
    """The first `shots` examples of each class, in the order of the support; without classes, of all. None: all.

    The places of a class that has fewer, as where classes are drawn by chance, go to further examples of the others:
    how many examples the student sees is the same in every task.

    Raises:
      ConfigError: the support has fewer.
    """
    if shots is None:
        return support
    have = jax.tree.leaves(support.inputs)[0].shape[0]
    wanted = shots * (ways or 1)
    if wanted > have:
        raise errors.ConfigError(
            f"the student sees {wanted} support examples, and the task has {have}",
            "algorithm.student_shots",
            "lower it, or raise task.shots",
        )
    order = jnp.arange(have)
    if ways is not None:
        members = jax.nn.one_hot(support.targets, ways, dtype=jnp.int32)
        number = (jnp.cumsum(members, axis=0) * members).sum(axis=1)  # of an example in its class, from 1
        order = jnp.argsort(number > shots, stable=True)
    return jax.tree.map(lambda leaf: leaf[order[:wanted]], support)
