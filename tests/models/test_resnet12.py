"""The models for pictures of any size and colour: resnet12 against XLA's convolutions, conv4 in colour, linear."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import trees
from metarun import base, config, errors
from metarun.models import affine, conv4, resnet12

KEY = jax.random.key(0)
SMALL = resnet12.Config(width=2, multiples=(1.0, 2.0))
COLOUR = base.Spec((9, 8, 3), 4, "classes")


def pictures(count: int, shape: tuple[int, ...], seed: int = 0):
    return jax.device_put(np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32))


@functools.cache
def small(normalisation: str):
    """A model of two blocks, some parameters without any special values, and support and query."""
    model = resnet12.build(resnet12.Config(2, (1.0, 2.0), normalisation, "flatten"), COLOUR)
    support, query = pictures(4, COLOUR.input_shape, 1), pictures(3, COLOUR.input_shape, 2)
    params = trees.normal_like(jax.eval_shape(model.init, KEY, support), 3)
    return model, jax.tree.map(np.asarray, params), support, query


@jax.jit
def convolve(inputs, kernel):
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(inputs, kernel, (1, 1), "SAME", dimension_numbers=axes)


def convolved(inputs, kernel):
    return np.asarray(convolve(inputs, kernel))


def layer(inputs, params, kind, reference):
    """A convolution of both, and the first normalised by the second (batch) or by itself (layer)."""
    outputs, source = (
        convolved(part, params["kernel"]) + params.get("bias", 0) for part in (inputs, reference)
    )
    norm = params["Normalisation_0"]

    def apply(part):
        axes = (0, 1, 2) if kind == "batch" else (1, 2, 3)
        basis = source if kind == "batch" else part
        mean, variance = basis.mean(axes, keepdims=True), basis.var(axes, keepdims=True)
        return (part - mean) / np.sqrt(variance + 1e-3) * norm["scale"] + norm["offset"]

    return apply(outputs), apply(source)


def rectified(parts):
    return [np.where(part > 0, part, 0.1 * part) for part in parts]


def pooled(inputs):
    """The largest of each 2×2 block; an odd last row is dropped."""
    height, width = (size // 2 * 2 for size in inputs.shape[1:3])
    corners = [inputs[:, y:height:2, x:width:2] for y in (0, 1) for x in (0, 1)]
    return np.maximum.reduce(corners)


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_resnet12_is_three_convolutions_beside_one_rectified_and_pooled_in_every_block(kind):
    model, params, support, query = small(kind)
    features = jax.jit(lambda *given: model.embed(given[0], given[1], reference=given[2]))(
        params, query, support
    )
    parts = [query, support]
    for index in range(2):
        block = params[f"blocks_{index}"]
        inner = rectified(layer(*parts[:1], block["convolutions_0"], kind, parts[1]))
        inner = rectified(layer(inner[0], block["convolutions_1"], kind, inner[1]))
        inner = layer(inner[0], block["convolutions_2"], kind, inner[1])
        around = layer(parts[0], block["around"], kind, parts[1])
        parts = [pooled(part) for part in rectified([sum(pair) for pair in zip(inner, around, strict=True)])]
    expected = parts[0].reshape(3, -1)
    assert expected.shape == (3, 2 * 2 * 4)  # 9×8 → 4×4 → 2×2, of 4 channels
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_resnet12_under_vmap_over_weights_holds_no_convolution_only_matrix_products():
    model, params, support, query = small("batch")
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), params)

    def slopes(params):
        return jax.grad(lambda params: jnp.sum(model.apply(params, query, reference=support)))(params)

    program = str(jax.make_jaxpr(jax.vmap(slopes))(stacked))
    assert "dot_general" in program
    assert "conv_general" not in program


def shapes(model_config: resnet12.Config, size: int = 84):
    """The shapes of the parameters and of the features of two pictures, without computing either."""
    model = resnet12.build(model_config, base.Spec((size, size, 3), 5, "classes"))
    inputs = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    params = jax.eval_shape(model.init, KEY, inputs)
    return jax.tree.map(jnp.shape, params), jax.eval_shape(model.embed, params, inputs).shape


@pytest.mark.parametrize(
    ("given", "channels", "parameters"),
    [
        ({}, (64, 160, 320, 640), 12_424_320),  # MetaOptNet's, which papers round to 12.4 million
        ({"multiples": (1.0, 2.0, 4.0, 8.0)}, (64, 128, 256, 512), 8_000_000),
        ({"width": 16}, (16, 40, 80, 160), 780_000),
    ],
)
def test_resnet12_has_twelve_convolutions_and_the_channels_of_the_papers(given, channels, parameters):
    tree, features = shapes(resnet12.Config(**given))
    assert features == (2, channels[-1])
    inputs, count = 3, 0
    for index, outputs in enumerate(channels):
        block = tree[f"blocks_{index}"]
        kernels = [block[f"convolutions_{each}"]["kernel"] for each in range(3)] + [block["around"]["kernel"]]
        assert kernels == [(3, 3, inputs, outputs), *[(3, 3, outputs, outputs)] * 2, (1, 1, inputs, outputs)]
        count += sum(int(np.prod(kernel)) for kernel in kernels) + 4 * 2 * outputs
        inputs = outputs
    body = sum(int(np.prod(shape)) for name, part in tree.items() if name != "head" for shape in leaves(part))
    assert body == count
    assert abs(body / parameters - 1) < 0.02


def leaves(tree):
    return jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, tuple))


def test_flattened_features_keep_the_positions():
    assert shapes(resnet12.Config(width=4, head="flatten"), 84)[1] == (2, 5 * 5 * 40)


def test_resnet12_starts_with_activations_of_about_the_size_of_its_inputs():
    """By its initial weights alone, without normalisation: another fan of the kernels would be a factor of three."""
    model = resnet12.build(resnet12.Config(32, (1.0,), "none"), base.Spec((8, 8, 32), 5, "classes"))
    inputs = pictures(4, (8, 8, 32))
    features = jax.jit(lambda key: model.embed(model.init(key, inputs), inputs))(KEY)
    assert 0.5 < float(jnp.sqrt(jnp.mean(features**2))) < 3


def test_resnet12_refuses_what_it_cannot_halve_four_times_and_what_is_no_picture():
    with pytest.raises(ValueError, match="at least 16 pixels"):
        resnet12.build(resnet12.Config(), base.Spec((15, 84, 3), 5, "classes"))
    with pytest.raises(ValueError, match="needs pictures"):
        resnet12.build(resnet12.Config(), base.Spec((40,), 5, "classes"))
    with pytest.raises(ValueError, match="channel"):
        resnet12.Config(width=1, multiples=(0.1,))


def test_a_block_without_channels_is_a_config_error(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "task: {name: sinusoid}\nmodel: {name: resnet12, multiples: []}\n"
        "algorithm: {name: maml, inner_steps: 1, inner_lr: 0.1}\ntraining: {steps: 1, tasks_per_step: 1}\n"
    )
    with pytest.raises(errors.ConfigError, match="every block needs a channel"):
        config.load(file)


def test_a_condition_modulates_resnet12_and_zeros_change_nothing():
    model = resnet12.build(SMALL, COLOUR)
    inputs, condition = pictures(3, COLOUR.input_shape), np.arange(2.0, dtype=np.float32)
    shapes = jax.eval_shape(lambda condition: model.init(KEY, inputs, condition=condition), condition)
    params = trees.normal_like(shapes, 3)
    apply = jax.jit(lambda condition: model.apply(params, inputs, condition=condition))
    plain = np.asarray(jax.jit(model.apply)(without_modulation(params), inputs))
    np.testing.assert_allclose(apply(0 * condition), plain, rtol=1e-5, atol=1e-5 * np.abs(plain).max())
    assert np.abs(apply(condition) - plain).max() > 1e-3


def without_modulation(params):
    """The parameters that a model without a condition has."""
    if not isinstance(params, dict):
        return params
    return {name: without_modulation(part) for name, part in params.items() if name != "Modulation_0"}


@pytest.mark.parametrize("size", [(84, 84), (28, 40), (33, 17)])
@pytest.mark.parametrize("downsample", ["stride", "max_pool"])
def test_conv4_takes_colour_and_any_size(size, downsample):
    model = conv4.build(conv4.Config(width=4, downsample=downsample), base.Spec((*size, 3), 5, "classes"))
    inputs = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    params = jax.eval_shape(model.init, KEY, inputs)
    assert params["blocks_0"]["kernel"].shape == (3, 3, 3, 4)
    assert jax.eval_shape(model.apply, params, inputs).shape == (2, 5)


def test_conv4_looks_at_every_colour():
    model = conv4.build(conv4.Config(width=4, depth=2), COLOUR)
    inputs = pictures(2, COLOUR.input_shape)
    params = trees.normal_like(jax.eval_shape(model.init, KEY, inputs), 3)
    slopes = jax.jit(jax.grad(lambda inputs: jnp.sum(model.apply(params, inputs)[:, 0] ** 2)))(inputs)
    assert (np.abs(slopes).max(axis=(0, 1, 2)) > 1e-6).all()


def test_linear_is_one_matrix_and_embeds_the_flattened_inputs():
    model = affine.build(affine.Config(), COLOUR)
    inputs = pictures(5, COLOUR.input_shape)
    params = jax.tree.map(np.asarray, trees.normal_like(jax.eval_shape(model.init, KEY, inputs), 3))
    flat = np.asarray(inputs).reshape(5, -1)
    np.testing.assert_array_equal(jax.jit(model.embed)(params, inputs), flat)
    expected = flat @ params["head"]["kernel"] + params["head"]["bias"]
    found = jax.jit(model.apply)(params, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert params["head"]["kernel"].shape == (9 * 8 * 3, 4)
