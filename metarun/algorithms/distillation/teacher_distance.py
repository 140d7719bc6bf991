"""How far a student's answers or features are from its teachers' on the same examples."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base
from metarun.base import PyTree
from metarun.blocks import ensemble, last_layer, metric_space, output_distance
from metarun.blocks.earlier_stages import Algorithms

if TYPE_CHECKING:
    from metarun.algorithms.distillation import Config


def make_distance(
    config: "Config", teachers: Algorithms, student: base.Algorithm, problem: base.Problem
) -> Callable:
    """Make (student's learner, teachers' learners, query, teacher inputs) -> D, which `config.matches` names."""

    def compare_outputs(learner, learners, query: base.Examples, teacher_inputs: PyTree):
        teacher_outputs = ensemble.predict(teachers, learners, teacher_inputs)
        outputs = student.predict(learner, query.inputs)
        return output_distance.measure_output_distance(
            problem, outputs, teacher_outputs, query.targets, config.temperature
        )

    def compare_features(learner, learners, query: base.Examples, teacher_inputs: PyTree):
        teacher_features = ensemble.compute_features(teachers, learners, teacher_inputs)
        features = last_layer.compute_features(student.predict, learner, query.inputs, config.student)
        return measure_feature_distance(features, teacher_features)

    def compare_both(*arguments):
        return compare_outputs(*arguments) + config.feature_weight * compare_features(*arguments)

    comparisons = {"outputs": compare_outputs, "features": compare_features, "both": compare_both}
    return comparisons[config.matches]


def measure_feature_distance(
    student: Float[Array, "*batch feature"], teachers: list[Float[Array, "member *batch wide"]]
) -> Float[Array, ""]:
    """Return 1/n² ‖G_s − G_t‖², the mean over the teachers.

    This is the similarity-preserving loss of Tung and Mori 2019, arXiv 1907.09682. G is F·Fᵀ of the n examples, each
    row at length 1: it compares features of any two widths, and learns nothing for that.
    """
    student_gram = compute_gram(student)
    distances = [
        jnp.square(jax.vmap(compute_gram)(features) - student_gram[None]).mean(axis=(1, 2))
        for features in teachers
    ]
    return jnp.concatenate(distances).mean()


def compute_gram(features: Float[Array, "*batch feature"]) -> Float[Array, "example example"]:
    """Return the scalar products of all pairs of rows, each row of products at length 1."""
    rows = features.reshape(-1, features.shape[-1])
    return metric_space.unit(rows @ rows.T)
