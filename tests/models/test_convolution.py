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
    inputs = jax.device_put(generator.standard_normal((2, *size, 2)))
    return inputs, jax.device_put(generator.standard_normal((*tasks, *window, 2, 3)))


def make_gradient(convolve, stride):
    """∂/∂inputs and ∂/∂kernel of a scalar that is not linear in either."""
    return jax.grad(lambda inputs, kernel: jnp.sum(jnp.sin(convolve(inputs, kernel, stride))), argnums=(0, 1))


def second_gradients(convolve, stride):
    """The gradient of the squared length of the gradient: what second-order MAML asks for."""

    def length(inputs, kernel):
        return sum(jnp.sum(slope**2) for slope in make_gradient(convolve, stride)(inputs, kernel))

    return jax.grad(length, argnums=(0, 1))


@pytest.mark.parametrize("window", [(3, 3), (2, 2), (5, 1), (1, 1)])
@pytest.mark.parametrize("stride", STRIDES)
def test_values_are_those_of_a_convolution_with_same_padding(stride, window):
    @jax.jit
    def compute(pairs):
        ours, xla = (
            [convolve(*pair, stride) for pair in pairs] for convolve in (_convolution.convolve, reference)
        )
        return ours, xla

    trees.assert_close(*compute([arrays(size, window) for size in SIZES]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 7), (5, 4)])
@pytest.mark.parametrize("stride", STRIDES)
def test_first_derivatives_are_those_of_a_convolution(stride, size):
    inputs, kernel = arrays(size)
    differentiate = [make_gradient(convolve, stride) for convolve in (_convolution.convolve, reference)]
    actual, expected = jax.jit(lambda *given: [gradient(*given) for gradient in differentiate])(
        inputs, kernel
    )
    trees.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", STRIDES)
def test_second_derivatives_are_those_of_a_convolution_also_under_vmap_over_kernels(stride):
    inputs, kernels = arrays((4, 5), tasks=(2,))
    single, ours = (second_gradients(convolve, stride) for convolve in (reference, _convolution.convolve))

    @jax.jit
    def compute(inputs, kernels):
        expected = [single(inputs, kernel) for kernel in kernels]
        return expected, ours(inputs, kernels[0]), jax.vmap(ours, in_axes=(None, 0))(inputs, kernels)

    expected, alone, batched = compute(inputs, kernels)
    trees.assert_close(alone, expected[0], rtol=1e-9, atol=1e-9)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *expected)
    trees.assert_close(batched, stacked, rtol=1e-9, atol=1e-9)


def slice_with_stride(inputs, window, stride):
    """The patches as slices of the padded input, whose derivative jax finds by itself."""
    sides = zip(inputs.shape[1:3], window, strict=True)
    (height, *rows), (width, *columns) = (_convolution.pad_same(size, side, stride) for size, side in sides)
    padded = jnp.pad(inputs, ((0, 0), rows, columns, (0, 0)))
    ends = ((height - 1) * stride + 1, (width - 1) * stride + 1)
    slices = [
        padded[:, row : row + ends[0] : stride, column : column + ends[1] : stride]
        for row in range(window[0])
        for column in range(window[1])
    ]
    return jnp.concatenate(slices, axis=-1)


@pytest.mark.parametrize(
    ("size", "window", "stride"),
    [
        ((28, 28), (3, 3), 2),
        ((14, 7), (3, 3), 2),
        ((4, 2), (3, 3), 2),
        ((7, 6), (2, 3), 2),
        ((7, 8), (5, 1), 3),
        ((5, 6), (1, 1), 2),
        ((6, 5), (3, 3), 1),
    ],
)
def test_patches_and_their_adjoint_are_those_of_slices_with_a_stride(size, window, stride):
    """Patches are linear, so that these three are all that a derivative of any order is made of."""
    inputs, _ = arrays(size)

    @jax.jit
    def differentiate(inputs, *directions):
        results = []
        for make in (_convolution.make_patches, slice_with_stride):
            patches, adjoint = jax.vjp(lambda inputs, make=make: make(inputs, window, stride), inputs)
            back = adjoint(directions[0])[0] if directions else None
            _, adjoint_of_adjoint = jax.vjp(lambda patches, adjoint=adjoint: adjoint(patches)[0], patches)
            results.append((patches, back, adjoint_of_adjoint(inputs)[0]))
        return results

    shape = jax.eval_shape(differentiate, inputs)[0][0].shape
    ours, plain = differentiate(inputs, np.random.default_rng(1).standard_normal(shape))
    trees.assert_equal((ours[0], ours[2]), (plain[0], plain[2]))
    trees.assert_close(ours[1], plain[1], rtol=2e-15, atol=2e-15)


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

    @jax.jit
    def compute(inputs):
        pools = _convolution.max_pool, pooled
        slopes = [jax.grad(lambda x, pool=pool: jnp.sum(jnp.sin(pool(x))))(inputs) for pool in pools]
        return [pool(inputs) for pool in pools], slopes

    values, slopes = compute(inputs)
    trees.assert_equal(*values)
    trees.assert_close(*slopes, rtol=1e-12)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_max_pool_hides_no_nan(place):
    inputs = np.where(np.arange(4) == place, np.nan, 0.0).reshape(1, 2, 2, 1)
    assert np.isnan(jax.jit(_convolution.max_pool)(inputs)).all()


def test_of_equal_inputs_of_max_pool_the_first_takes_the_whole_derivative():
    slope = jax.jit(jax.grad(lambda inputs: _convolution.max_pool(inputs).sum()))(np.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(np.ravel(slope), [1, 0, 0, 0])


def test_max_pool_has_a_second_derivative():
    inputs, _ = arrays((4, 4))

    def length(inputs):
        return jnp.sum(jax.grad(lambda inputs: jnp.sum(_convolution.max_pool(inputs) ** 3))(inputs) ** 2)

    gradients.assert_gradient_is_that_of_differences(length, inputs)


@pytest.mark.parametrize(
    ("size", "window", "stride"), [(6, 3, 1), (6, 3, 2), (7, 3, 2), (7, 2, 2), (1, 5, 2)]
)
def test_padding_is_tensorflows_rule(size, window, stride):
    before, after = jax.lax.padtype_to_pads((size,), (window,), (stride,), "SAME")[0]
    output, *padding = _convolution.pad_same(size, window, stride)
    assert (output, padding) == (-(-size // stride), [before, after])
