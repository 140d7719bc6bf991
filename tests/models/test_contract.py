"""Every model is a pure function of its parameters, and says honestly which examples normalise which."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, compiled, gradients, trees
from metarun import base, plugins
from metarun.models import conv4

KEY = jax.random.key(0)


def accepted_spec(name: str) -> base.Spec:
    """The first of the specs that the model can be built for."""
    for spec in builders.SPECS:
        try:
            builders.build_model(name, spec)
        except ValueError:
            continue
        return spec
    raise AssertionError(f"{name} refuses every spec of builders.SPECS: add one that it accepts")


def normalisations(name: str) -> list[str]:
    known = {field.name for field in plugins.list_fields("model", name)}
    return ["batch", "layer", "none"] if "normalisation" in known else ["default"]


MODELS = [(name, kind) for name in plugins.list_names("model") for kind in normalisations(name)]
every_model = pytest.mark.parametrize(("name", "normalisation"), MODELS)


class Case:
    """A model with its parameters and some inputs."""

    def __init__(self, name: str, normalisation: str) -> None:
        self.spec = accepted_spec(name)
        self.model = builders.build_model(name, self.spec, normalisation=normalisation)
        self.support, self.query, others = (self.examples(seed, 3) for seed in (1, 2, 3))
        self.others_replaced = each(  # all queries but the first
            lambda own, other: np.concatenate(
                [own[:1], 5 * other[1:] if own.dtype.kind == "f" else other[1:]]
            ),
            self.query,
            others,
        )
        self.shapes = jax.eval_shape(self.model.init, KEY, self.support)
        self.params = trees.normal_like(self.shapes, 4)  # no bias is 0, no scale 1
        self.apply = jax.jit(self._apply)

    def _apply(self, params, inputs, reference=None):
        return self.model.apply(params, inputs, reference=reference)

    def examples(self, seed: int, count: int):
        inputs = builders.inputs_for(self.spec, np.random.default_rng(seed), count)
        return jax.tree.map(jax.device_put, inputs) if self.spec.vocabulary is not None else inputs


def each(function, *trees):
    """`function` of arrays, on every array of the inputs."""
    return jax.tree.map(function, *trees)


@functools.cache
def make_case(name: str, normalisation: str) -> Case:
    return Case(name, normalisation)


@pytest.fixture
def case(name, normalisation) -> Case:
    return make_case(name, normalisation)


@every_model
def test_outputs_and_features_have_a_row_an_example(case):
    assert {leaf.dtype for leaf in jax.tree.leaves(case.params)} == {jnp.dtype("float32")}
    outputs = case.apply(case.params, case.query)
    positions = () if case.spec.vocabulary is None else case.query["prefix"].shape[1:]
    assert outputs.shape == (3, *positions, case.spec.output_size)
    assert outputs.dtype == jnp.float32
    assert np.isfinite(np.asarray(outputs)).all()
    features = jax.eval_shape(case.model.embed, case.params, case.query)
    assert (features.ndim, features.shape[0], features.dtype) == (2, 3, jnp.float32)


@every_model
def test_parameters_are_a_function_of_the_key_and_of_the_shape_of_the_inputs(case):
    init = jax.jit(case.model.init)
    params = init(KEY, case.support)
    trees.assert_equal(init(KEY, case.examples(4, 3)), params)
    assert trees.differ(init(jax.random.key(1), case.support), params)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(params))
    of_more = jax.eval_shape(case.model.init, KEY, case.examples(2, 4))
    assert trees.kind_of(of_more) == trees.kind_of(case.shapes)


@every_model
def test_under_vmap_over_parameters_every_task_computes_as_if_alone(case):
    tasks = [trees.normal_like(case.params, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)
    together = jax.jit(jax.vmap(case.apply, in_axes=(0, None, None)))(stacked, case.query, case.support)
    alone = np.stack([case.apply(params, case.query, case.support) for params in tasks])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())


@every_model
def test_the_gradient_of_a_loss_is_that_of_differences(case):
    """It is taken of the sum over both modes: a wrong derivative of either makes that of the sum wrong."""
    with gradients.float64():
        params, support, query = gradients.to_float64((case.params, case.support, case.query))
        noise = trees.normal_like(params, 9)
        params = each(lambda leaf, part: np.asarray(leaf) + 0.1 * np.asarray(part), params, noise)

        def loss(params):
            outputs = [case.model.apply(params, query, reference=reference) for reference in (None, support)]
            return jnp.mean(jnp.sin(jnp.stack(outputs)))

        gradients.assert_gradient_is_that_of_differences(loss, params)


@pytest.mark.parametrize(("name", "normalisation"), [model for model in MODELS if model[1] == "batch"])
def test_without_a_reference_batch_normalisation_lets_queries_see_each_other(case):
    queries = case.query, case.others_replaced
    together, replaced = (np.asarray(case.apply(case.params, query)) for query in queries)
    assert np.abs(together[0] - replaced[0]).max() > 1e-3


@pytest.mark.parametrize(("name", "normalisation"), [model for model in MODELS if model[1] == "batch"])
def test_with_a_reference_batch_normalisation_depends_on_it(case):
    references = case.support, 5 * case.support
    own, other = (np.asarray(case.apply(case.params, case.query, reference)) for reference in references)
    assert np.abs(own - other).max() > 1e-3


@every_model
def test_with_the_support_as_reference_no_query_depends_on_another(case):
    together = case.apply(case.params, case.query, case.support)
    replaced = np.asarray(case.apply(case.params, case.others_replaced, case.support))
    np.testing.assert_allclose(replaced[0], np.asarray(together)[0], rtol=1e-5, atol=1e-6)
    alone = [
        np.asarray(case.apply(case.params, compiled.select(case.query, slice(i, i + 1)), case.support))[0]
        for i in range(3)
    ]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5, atol=1e-6)


@every_model
def test_a_reference_of_the_same_examples_is_no_reference(case):
    own = case.apply(case.params, case.query, case.query)
    np.testing.assert_allclose(own, case.apply(case.params, case.query), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "normalisation"), [model for model in MODELS if model[1] in ("layer", "none")]
)
def test_without_batch_statistics_the_reference_is_ignored_and_queries_are_independent(case):
    plain = np.asarray(case.apply(case.params, case.query))
    trees.assert_equal(np.asarray(case.apply(case.params, case.query, case.support)), plain)
    replaced = np.asarray(case.apply(case.params, case.others_replaced))
    np.testing.assert_allclose(replaced[0], plain[0], rtol=1e-5, atol=1e-6)


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
