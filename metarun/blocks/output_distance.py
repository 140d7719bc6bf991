"""How far the answers of a network are from those of its teachers. Hinton, Vinyals, Dean 2015, arXiv 1503.02531."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metarun import base
from metarun.base import PyTree


def measure_output_distance(
    problem: base.Problem,
    student: Float[Array, "*batch output"],
    teachers: Float[Array, "member *batch output"],
    targets: PyTree,
    temperature: float | Array,
) -> Float[Array, ""]:
    """Return T² KL(mean_m softmax(t_m / T) ‖ softmax(s / T)) of logits, the mean over what the loss depends on.

    Where targets are numbers, this is the mean squared error to the mean of the teachers.
    """
    if problem.spec.targets == "numbers":
        return jnp.square(student - teachers.mean(axis=0)).mean()
    probabilities = jax.nn.softmax(teachers / temperature).mean(axis=0)
    log_teachers, log_student = jnp.log(probabilities + 1e-12), jax.nn.log_softmax(student / temperature)
    divergence = (probabilities * (log_teachers - log_student)).sum(axis=-1)
    counted = find_counted(problem.objective, student, targets)
    return temperature**2 * jnp.sum(jnp.where(counted, divergence, 0.0)) / jnp.sum(counted)


def find_counted(
    objective: base.Objective, logits: Float[Array, "*batch output"], targets: PyTree
) -> Bool[Array, "*batch"]:
    """Return which rows of logits the loss depends on: all of a classification, all of a sentence but the padding.

    At logits of zero the derivative of a cross-entropy by a row that counts is nowhere zero.
    """
    return jnp.any(jax.grad(objective.loss)(jnp.zeros_like(logits), targets) != 0, axis=-1)
