"""Class means, distances and cosines where their digits or derivatives are at stake."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarun.blocks import metric_space

pytestmark = pytest.mark.usefixtures("in_float64")


def test_with_one_shot_a_prototype_is_its_example_and_the_support_recognises_itself():
    features, labels = np.random.default_rng(0).standard_normal((4, 3)), np.asarray([3, 1, 0, 2])
    means = np.asarray(jax.jit(metric_space.class_means, static_argnums=2)(features, labels, 4))
    np.testing.assert_array_equal(means[labels], features)
    distances = np.asarray(jax.jit(metric_space.squared_distances)(features, means))
    np.testing.assert_array_equal(distances.argmin(axis=1), labels)
    np.testing.assert_array_equal(distances.min(axis=1), 0)


def test_features_that_are_near_each_other_keep_their_digits_far_from_the_origin():
    """|f|² − 2 f·p + |p|² would give 0 for these, in float32."""
    far = np.full((1, 4), 1000.0, np.float32)
    distance = jax.jit(metric_space.squared_distances)(far, far + np.float32(2**-10))
    np.testing.assert_allclose(distance, 4 * 2.0**-20, rtol=1e-6)


def test_the_cosine_with_a_zero_vector_is_zero_and_has_a_finite_derivative():
    def total(vector):
        return metric_space.cosines(vector, jnp.ones((1, 3))).sum()

    value, slope = jax.jit(jax.value_and_grad(total))(np.zeros((1, 3)))
    assert value == 0
    assert np.isfinite(slope).all()
