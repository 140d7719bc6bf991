"""The convolution by matrix product is XLA's, in its values and in two derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import gradients, trees
from metarun.models import _convolution

pytestmark = pytest.mark.usefixtures("in_float64")

STRIDES, SIZES = (1, 2), ((6, 7), (8, 5), (1, 2), (7, 7))  # even and odd, larger and smaller than the window


def reference(inputs, kernel, stride):
    return jax.lax.conv_general_dilated(
        inputs, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def arrays(size, window=(3, 3), tasks=()):
    generator = np.random.default_rng(0)
    inputs = jnp.asarray(generator.standard_normal((2, *size, 2)))
    return inputs, jnp.asarray(generator.standard_normal((*tasks, *window, 2, 3)))


def make_gradient(convolve, stride):
    """∂/∂inputs and ∂/∂kernel of a scalar that is not linear in either."""
    return jax.grad(lambda inputs, kernel: jnp.sum(jnp.sin(convolve(inputs, kernel, stride))), argnums=(0, 1))


def second_gradients(convolve, stride):
    """The gradient of the squared length of the gradient: what second-order MAML asks for."""

    def length(inputs, kernel):
        return sum(jnp.sum(slope**2) for slope in make_gradient(convolve, stride)(inputs, kernel))

    return jax.grad(length, argnums=(0, 1))


@pytest.mark.parametrize("window", [(3, 3), (2, 2), (5, 1), (1, 1)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", STRIDES)
def test_values_are_those_of_a_convolution_with_same_padding(stride, size, window):
    inputs, kernel = arrays(size, window)
    expected = reference(inputs, kernel, stride)
    actual = _convolution.convolve(inputs, kernel, stride)
    trees.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 7), (5, 4)])
@pytest.mark.parametrize("stride", STRIDES)
def test_first_derivatives_are_those_of_a_convolution(stride, size):
    inputs, kernel = arrays(size)
    actual = jax.jit(make_gradient(_convolution.convolve, stride))(inputs, kernel)
    expected = jax.jit(make_gradient(reference, stride))(inputs, kernel)
    trees.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", STRIDES)
def test_second_derivatives_are_those_of_a_convolution_also_under_vmap_over_kernels(stride):
    inputs, kernels = arrays((4, 5), tasks=(2,))
    single = jax.jit(second_gradients(reference, stride))
    expected = [single(inputs, kernel) for kernel in kernels]
    ours = second_gradients(_convolution.convolve, stride)
    trees.assert_close(jax.jit(ours)(inputs, kernels[0]), expected[0], rtol=1e-9, atol=1e-9)
    batched = jax.jit(jax.vmap(ours, in_axes=(None, 0)))(inputs, kernels)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected)
    trees.assert_close(batched, stacked, rtol=1e-9, atol=1e-9)


def test_vmap_over_kernels_contains_no_convolution_only_matrix_products():
    inputs, kernels = arrays((6, 6), tasks=(3,))
    program = jax.make_jaxpr(jax.vmap(second_gradients(_convolution.convolve, 2), in_axes=(None, 0)))
    text = str(program(inputs, kernels))
    assert "dot_general" in text
    assert "conv_general" not in text


def pooled(inputs):
    return jax.lax.reduce_window(inputs, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@pytest.mark.parametrize("size", [(6, 4), (7, 5), (2, 3)])
def test_max_pool_and_its_derivative_are_those_of_a_reduced_window(size):
    inputs, _ = arrays(size)
    trees.assert_equal(_convolution.max_pool(inputs), pooled(inputs))
    actual, expected = (
        jax.grad(lambda inputs, pool=pool: jnp.sum(jnp.sin(pool(inputs))))(inputs)
        for pool in (_convolution.max_pool, pooled)
    )
    trees.assert_close(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_max_pool_hides_no_nan(place):
    inputs = jnp.zeros(4).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
    assert jnp.isnan(_convolution.max_pool(inputs)).all()


def test_of_equal_inputs_of_max_pool_the_first_takes_the_whole_derivative():
    slope = jax.grad(lambda inputs: _convolution.max_pool(inputs).sum())(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(slope.reshape(-1), [1, 0, 0, 0])


def test_max_pool_has_a_second_derivative():
    inputs, _ = arrays((4, 4))

    def length(inputs):
        return jnp.sum(jax.grad(lambda inputs: jnp.sum(_convolution.max_pool(inputs) ** 3))(inputs) ** 2)

    gradients.assert_gradient_is_that_of(length, jax.grad(length)(inputs), inputs)


@pytest.mark.parametrize(
    ("size", "window", "stride"), [(6, 3, 1), (6, 3, 2), (7, 3, 2), (7, 2, 2), (1, 5, 2)]
)
def test_padding_is_tensorflows_rule(size, window, stride):
    before, after = jax.lax.padtype_to_pads((size,), (window,), (stride,), "SAME")[0]
    output, *padding = _convolution.pad_same(size, window, stride)
    assert (output, padding) == (-(-size // stride), [before, after])
