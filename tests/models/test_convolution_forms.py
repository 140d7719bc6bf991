"""A convolution by matrix products and XLA's own one are the same function, and so are the networks made of them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import gradients, trees
from metarun import base
from metarun.models import _convolution, conv4, resnet12

SPEC = base.Spec((8, 8, 1), 2, "classes")
MODELS = {
    "conv4": (conv4, conv4.Config(width=3, depth=2)),
    "resnet12": (resnet12, resnet12.Config(width=2, multiples=(1.0, 2.0))),
}


def make_task_gradient(convolve):
    """(inputs, kernel) -> the gradient of the squared length of the gradient, for one task's kernel."""

    def loss(inputs, kernel):
        return jnp.sum(jnp.sin(convolve(inputs, kernel)))

    def length(inputs, kernel):
        return sum(jnp.sum(slope**2) for slope in jax.grad(loss, argnums=(0, 1))(inputs, kernel))

    return lambda *arrays: (
        convolve(*arrays),
        jax.grad(loss, (0, 1))(*arrays),
        jax.grad(length, (0, 1))(*arrays),
    )


@pytest.mark.parametrize(("size", "stride", "window"), [((5, 6), 2, 3), ((4, 5), 1, 3), ((7, 3), 2, 2)])
def test_both_forms_are_equal_in_values_and_two_derivatives_of_a_kernel_for_each_task(size, stride, window):
    generator = np.random.default_rng(0)

    @jax.jit
    def compute(inputs, kernels):
        return [
            jax.vmap(
                make_task_gradient(lambda *arrays, form=form: _convolution.convolve(*arrays, stride, form))
            )(inputs, kernels)
            for form in ("products", "native")
        ]

    with gradients.float64():
        inputs = jnp.asarray(generator.standard_normal((2, 2, *size, 2)))
        products, native = compute(inputs, jnp.asarray(generator.standard_normal((2, window, window, 2, 3))))
        assert jax.tree.leaves(native)[0].dtype == jnp.float64
        trees.assert_close(products, native, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_computes_the_same_in_both_forms(name):
    """Also after one inner step of MAML: to 1e-5, in single precision. conv4 alone, because resnet12 compiles long."""
    module, config = MODELS[name]
    models = [module.build(replace(config, convolution=form), SPEC) for form in ("products", "native")]
    pictures = np.random.default_rng(0).standard_normal((4, 8, 8, 1)).astype(np.float32)

    def apply_adapted(model, params):
        def loss(params):
            return jnp.mean(jnp.square(model.apply(params, pictures) - jnp.ones((1, 2))))

        slopes = jax.grad(loss)(params)
        return model.apply(jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, params, slopes), pictures)

    def compute(params):
        return [
            (model.apply(params, pictures), apply_adapted(model, params) if name == "conv4" else 0)
            for model in models
        ]

    params = trees.normal_like(jax.eval_shape(models[0].init, jax.random.key(0), pictures), 0)
    products, native = jax.jit(compute)(params)
    trees.assert_close(products, native, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("fastest", ["products", "native"])
def test_auto_is_the_form_that_the_table_names_for_the_platform(monkeypatch, name, fastest):
    monkeypatch.setitem(_convolution.FASTEST, "cpu", fastest)
    module, config = MODELS[name]
    model = module.build(config, SPEC)
    pictures = np.zeros((1, 8, 8, 1), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), pictures)
    program = str(jax.make_jaxpr(model.apply)(params, pictures))
    assert ("conv_general_dilated" in program) == (fastest == "native")


def test_every_platform_of_a_config_has_its_form_in_the_table():
    assert set(_convolution.FASTEST) == {"cpu", "gpu", "tpu"}
