"""Prototypical networks against numpy, example by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_metric_learners import QUERY_LABELS, SUPPORT_LABELS, Case, in_float64  # noqa: F401

from metarun.algorithms import _prototypes


def prototypes(case: Case) -> np.ndarray:
    features = case.features(case.episode.support.inputs)
    return np.stack([features[[label == way for label in SUPPORT_LABELS]].mean(axis=0) for way in range(3)])


def euclidean(feature, prototype):
    return -((feature - prototype) ** 2).sum()


def cosine(feature, prototype):
    return feature @ prototype / np.linalg.norm(feature) / np.linalg.norm(prototype)


def logits(case: Case, similarity) -> np.ndarray:
    queries = case.features(case.episode.query.inputs)
    return np.array([[similarity(query, point) for point in prototypes(case)] for query in queries])


@pytest.mark.parametrize(
    ("distance", "similarity", "scale", "factor"),
    [
        ("euclidean", euclidean, None, 1),
        ("euclidean", euclidean, 0.5, 0.5),
        ("cosine", cosine, None, 10),
        ("cosine", cosine, 3.0, 3),
    ],
)
def test_logits_are_the_similarities_to_the_means_of_the_classes(distance, similarity, scale, factor):
    case = Case("protonet", distance=distance, scale=scale)
    np.testing.assert_allclose(case.outputs(), factor * logits(case, similarity), rtol=1e-10, atol=1e-12)


def test_the_loss_is_the_negative_log_probability_of_the_querys_classes():
    case = Case("protonet")
    powers = np.exp(logits(case, euclidean))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    expected = -np.mean([np.log(probabilities[index, label]) for index, label in enumerate(QUERY_LABELS)])
    np.testing.assert_allclose(case.loss()[0], expected, rtol=1e-12)


def test_with_one_shot_a_prototype_is_its_example_and_the_support_recognises_itself():
    features = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)))
    labels = jnp.asarray([3, 1, 0, 2])
    means = _prototypes.class_means(features, labels, 4)
    np.testing.assert_array_equal(means[labels], features)
    distances = _prototypes.squared_distances(features, means)
    np.testing.assert_array_equal(distances.argmin(axis=1), labels)
    np.testing.assert_array_equal(distances.min(axis=1), 0)


def test_features_that_are_near_each_other_keep_their_digits_far_from_the_origin():
    """|f|² − 2 f·p + |p|² would give 0 for these, in float32."""
    far = jnp.full((1, 4), 1000.0, jnp.float32)
    distance = _prototypes.squared_distances(far, far + jnp.float32(2**-10))
    np.testing.assert_allclose(distance, 4 * 2.0**-20, rtol=1e-6)


def test_the_cosine_with_a_zero_vector_is_zero_and_has_a_finite_derivative():
    def total(vector):
        return _prototypes.cosines(vector, jnp.ones((1, 3))).sum()

    zero = jnp.zeros((1, 3))
    assert total(zero) == 0
    assert np.isfinite(jax.grad(total)(zero)).all()
