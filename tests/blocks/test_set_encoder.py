"""The set encoder: what it reads, against numpy, and how large it is."""

import jax
import numpy as np
import pytest

from helpers import builders, gradients, numpy_networks
from metarun import base
from metarun.base import Examples
from metarun.blocks import set_encoder
from metarun.options import SetEncoder

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)
INPUTS = np.random.default_rng(0).standard_normal((5, 3))
MODEL = builders.build_model("mlp", base.Spec((3,), 2, "numbers"))  # not asked for vectors


def make_layers(spec: base.Spec, config: SetEncoder, model: base.Model = MODEL, inputs=INPUTS):
    init = jax.jit(lambda inputs: set_encoder.init(config, KEY, model, inputs, spec))
    return gradients.to_float64(init(inputs))


def encode(layers, model: base.Model, support: Examples, spec: base.Spec):
    return jax.jit(lambda layers, support: set_encoder.encode(layers, model, support, spec))(layers, support)


def test_options_are_the_sizes_of_the_layers():
    layers = make_layers(base.Spec((3,), 2, "numbers"), SetEncoder(width=5, depth=2, embed=4))
    kernels = {name: [layer["kernel"].shape for layer in layers[name]] for name in layers}
    assert kernels == {"pair": [(3 + 2, 5), (5, 5)], "whole": [(5, 5), (5, 4)]}


def test_in_a_regression_it_reads_the_mean_over_pairs_of_input_and_target():
    spec = base.Spec((3,), 2, "numbers")
    layers, targets = make_layers(spec, SetEncoder(6, 2, 3)), INPUTS[:, :2] ** 2
    support = Examples(jax.device_put(INPUTS), jax.device_put(targets))
    pairs = numpy_networks.perceptron(layers["pair"], np.concatenate([INPUTS, targets], axis=1))
    expected = numpy_networks.perceptron(layers["whole"], np.maximum(pairs, 0).mean(axis=0))
    np.testing.assert_allclose(encode(layers, MODEL, support, spec), expected, rtol=1e-6)


def test_in_a_classification_it_reads_the_mean_of_each_class_in_the_order_of_the_labels():
    spec, labels = base.Spec((3,), 2, "classes"), np.array([0, 1, 1, 0, 0], np.int32)
    layers = make_layers(spec, SetEncoder(6, 2, 3))
    support = Examples(jax.device_put(INPUTS), jax.device_put(labels))
    features = np.maximum(numpy_networks.perceptron(layers["pair"], INPUTS), 0)
    means = np.concatenate([features[labels == way].mean(axis=0) for way in (0, 1)])
    expected = numpy_networks.perceptron(layers["whole"], means)
    np.testing.assert_allclose(encode(layers, MODEL, support, spec), expected, rtol=1e-6)


def test_pictures_are_read_by_a_body_of_the_encoders_own():
    spec = base.Spec((8, 8, 1), 2, "numbers")
    model = builders.build_model("conv4", spec)
    pictures = jax.device_put(np.random.default_rng(0).standard_normal((5, *spec.input_shape)))
    layers = make_layers(spec, SetEncoder(5, 1, 3), model, pictures)
    assert "head" not in layers["body"]
    support = Examples(pictures, jax.device_put(INPUTS[:, :2]))
    assert encode(layers, model, support, spec).shape == (3,)
