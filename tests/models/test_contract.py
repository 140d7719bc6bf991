"""Every model is a pure function of its parameters, and says honestly which examples normalise which."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, trees
from metarun import base, plugins
from metarun.models import conv4
from metarun.testing import model_checks

KEY = jax.random.key(0)
MODELS = [
    (name, normalisation)
    for name in plugins.list_own_names("model")
    for normalisation in model_checks.list_normalisations(name)
]
PROMISES = [
    (*model, check)
    for model in MODELS
    for check in (*model_checks.CHECKS, *model_checks.SOME_CHECKS.get(model[1], ()))
]


@pytest.fixture
def case(name, normalisation) -> model_checks.Case:
    return model_checks.make_case(name, normalisation)


@pytest.mark.parametrize(
    ("name", "normalisation", "check"), PROMISES, ids=lambda part: getattr(part, "__name__", part)
)
def test_a_model_keeps_its_promise(case, check):
    check(case)


@pytest.mark.parametrize("normalisation", ["batch", "layer", "none"])
@pytest.mark.parametrize("name", ["mlp"])
def test_mlp_is_dense_layers_around_normalisation_and_activation(case, normalisation):
    params = jax.tree.map(np.asarray, trees.normal_like(case.params, 5))

    def dense(inputs, layer):
        return inputs @ layer["kernel"] + layer["bias"]

    parts = [part.reshape(len(part), -1) for part in (case.support, case.query)]
    for index in range(2):
        parts = [dense(part, params[f"hidden_{index}"]) for part in parts]
        if normalisation != "none":
            parts = numpy_normalised(*parts, normalisation, params[f"norms_{index}"])
        parts = [np.maximum(part, 0) for part in parts]
    expected = dense(parts[1], params["head"])
    outputs = case.apply(params, case.query, case.support)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def numpy_normalised(support, query, kind: str, norm):
    """Both parts after normalisation over all axes but the last (batch, by the support) or the first (layer)."""

    def apply(part, source, axes):
        mean, variance = source.mean(axes, keepdims=True), source.var(axes, keepdims=True)
        return (part - mean) / np.sqrt(variance + 1e-3) * norm["scale"] + norm["offset"]

    if kind == "batch":
        axes = tuple(range(support.ndim - 1))
        return apply(support, support, axes), apply(query, support, axes)
    axes = tuple(range(1, support.ndim))
    return apply(support, support, axes), apply(query, query, axes)


@pytest.mark.parametrize("downsample", ["stride", "max_pool"])
@pytest.mark.parametrize("normalisation", ["batch", "layer", "none"])
def test_conv4_is_convolutions_normalisation_and_half_the_size_in_every_block(normalisation, downsample):
    given = {"normalisation": normalisation, "downsample": downsample, "head": "flatten", "depth": 2}
    model = builders.build_model("conv4", base.Spec((9, 8, 1), 3, "classes"), **given)
    generator = np.random.default_rng(0)
    parts = [generator.standard_normal((count, 9, 8, 1)).astype(np.float32) for count in (2, 3)]
    params = jax.tree.map(np.asarray, trees.normal_like(jax.eval_shape(model.init, KEY, parts[0]), 7))
    features = jax.jit(lambda params, query, support: model.embed(params, query, reference=support))(
        params, parts[1], parts[0]
    )
    for index in range(2):
        block, stride = params[f"blocks_{index}"], 2 if downsample == "stride" else 1
        parts = [convolved(part, block["kernel"], stride) + block.get("bias", 0) for part in parts]
        if normalisation != "none":
            parts = numpy_normalised(*parts, normalisation, block["Normalisation_0"])
        parts = [np.maximum(part, 0) for part in parts]
        if downsample == "max_pool":
            parts = [pooled(part) for part in parts]
    expected = parts[1].reshape(3, -1)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@functools.partial(jax.jit, static_argnums=2)
def convolve(inputs, kernel, stride: int):
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(inputs, kernel, (stride, stride), "SAME", dimension_numbers=axes)


def convolved(inputs, kernel, stride: int):
    return np.asarray(convolve(inputs, kernel, stride))


def pooled(inputs):
    """The largest of each 2×2 block, by loops."""
    height, width = inputs.shape[1] // 2, inputs.shape[2] // 2
    blocks = [
        [inputs[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max((1, 2)) for x in range(width)]
        for y in range(height)
    ]
    return np.stack([np.stack(row, axis=1) for row in blocks], axis=1)


def shapes_of_conv4(size: int = 28, **options):
    """The shapes of the parameters, and of the features of two pictures, without computing either."""
    model = conv4.build(conv4.Config(**options), base.Spec((size, size, 1), 5, "classes"))
    pictures = jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32)
    params = jax.eval_shape(model.init, KEY, pictures)
    return jax.tree.map(jnp.shape, params), jax.eval_shape(model.embed, params, pictures).shape


def test_conv4_has_the_parameters_of_the_maml_paper_but_for_the_biases_that_normalisation_removes():
    shapes, features = shapes_of_conv4()
    norm = {"scale": (64,), "offset": (64,)}
    first = {"blocks_0": {"kernel": (3, 3, 1, 64), "Normalisation_0": norm}}
    others = {f"blocks_{i}": {"kernel": (3, 3, 64, 64), "Normalisation_0": norm} for i in (1, 2, 3)}
    assert shapes == {**first, **others, "head": {"kernel": (64, 5), "bias": (5,)}}
    assert features == (2, 64)


@pytest.mark.parametrize("kind", ["layer", "none"])
def test_conv4_has_biases_where_no_batch_normalisation_removes_them(kind):
    shapes, _ = shapes_of_conv4(normalisation=kind)
    assert {shapes[f"blocks_{i}"]["bias"] for i in range(4)} == {(64,)}


@pytest.mark.parametrize(
    ("options", "size", "features"),
    [
        ({"downsample": "max_pool", "head": "flatten"}, 28, 64),  # 28 → 14 → 7 → 3 → 1
        ({"downsample": "stride", "head": "flatten"}, 28, 4 * 64),  # 28 → 14 → 7 → 4 → 2
        ({"downsample": "max_pool", "head": "flatten"}, 84, 25 * 64),  # 84 → 42 → 21 → 10 → 5
        ({"downsample": "stride", "head": "mean", "width": 8, "depth": 2}, 9, 8),
    ],
)
def test_conv4_features_are_as_many_as_the_halved_pictures_hold(options, size, features):
    assert shapes_of_conv4(size, **options)[1] == (2, features)


def test_conv4_refuses_inputs_that_are_no_pictures():
    with pytest.raises(ValueError, match="pictures"):
        conv4.build(conv4.Config(), base.Spec((40,), 5, "classes"))


def test_conv4_refuses_pictures_that_max_pooling_would_shrink_to_nothing():
    with pytest.raises(ValueError, match="16 pixels"):
        conv4.build(conv4.Config(downsample="max_pool"), base.Spec((15, 28, 1), 5, "classes"))
    conv4.build(conv4.Config(downsample="max_pool"), base.Spec((16, 16, 1), 5, "classes"))
    conv4.build(conv4.Config(downsample="stride"), base.Spec((8, 8, 1), 5, "classes"))


@pytest.mark.parametrize(("name", "normalisation"), [("mlp", "none"), ("conv4", "batch")])
def test_a_model_without_modulation_refuses_a_condition(case):
    with pytest.raises(ValueError, match="condition"):
        case.model.apply(case.params, case.query, condition=jnp.zeros(2))
