"""Every model is a pure function of its parameters, and says honestly which examples normalise which."""

import contracts
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarun import base, plugins
from metarun.models import conv4

KEY = jax.random.key(0)


def accepted_spec(name: str) -> base.Spec:
    """The first of the specs that the model can be built for."""
    for spec in contracts.SPECS:
        try:
            contracts.build_model(name, spec)
        except ValueError:
            continue
        return spec
    raise AssertionError(f"{name} refuses every spec of contracts.SPECS: add one that it accepts")


def normalisations(name: str) -> list[str]:
    known = {field.name for field in plugins.fields("model", name)}
    return ["batch", "layer", "none"] if "normalisation" in known else ["default"]


MODELS = [(name, kind) for name in plugins.names("model") for kind in normalisations(name)]
every_model = pytest.mark.parametrize(("name", "normalisation"), MODELS)


class Case:
    """A model with its parameters and some inputs."""

    def __init__(self, name: str, normalisation: str) -> None:
        self.spec = accepted_spec(name)
        self.model = contracts.build_model(name, self.spec, normalisation=normalisation)
        self.support, self.query = self.examples(1, 4), self.examples(2, 3)
        self.params = jax.jit(self.model.init)(KEY, self.support)
        self.apply = jax.jit(
            lambda params, inputs, reference=None: self.model.apply(params, inputs, reference=reference)
        )

    def examples(self, seed: int, count: int):
        return jax.random.normal(jax.random.key(seed), (count, *self.spec.input_shape))

    def others_replaced(self):
        """The queries, of which all but the first are different ones."""
        return self.query.at[1:].set(self.examples(3, 2) * 5)


@pytest.fixture
def case(name, normalisation) -> Case:
    return Case(name, normalisation)


@every_model
def test_outputs_and_features_have_a_row_an_example(case):
    assert {leaf.dtype for leaf in jax.tree.leaves(case.params)} == {jnp.dtype("float32")}
    outputs = case.apply(case.params, case.query)
    assert outputs.shape == (3, case.spec.output_size)
    assert outputs.dtype == jnp.float32
    assert np.isfinite(outputs).all()
    features = case.model.embed(case.params, case.query, reference=case.support)
    assert features.ndim == 2
    assert features.shape[0] == 3


@every_model
def test_parameters_are_a_function_of_the_key_and_of_the_shape_of_the_inputs(case):
    init = jax.jit(case.model.init)
    contracts.assert_equal(init(KEY, case.examples(4, 4)), case.params)
    assert contracts.kind_of(init(KEY, case.query)) == contracts.kind_of(case.params)
    assert contracts.differ(init(jax.random.key(1), case.support), case.params)


@every_model
def test_under_vmap_over_parameters_every_task_computes_as_if_alone(case):
    keys = jax.random.split(KEY, 3)
    params = jax.jit(jax.vmap(case.model.init, in_axes=(0, None)))(keys, case.support)
    apply = jax.jit(jax.vmap(case.apply, in_axes=(0, None, None)))
    alone = [
        case.apply(jax.tree.map(lambda leaf, i=i: leaf[i], params), case.query, case.support)
        for i in range(3)
    ]
    contracts.assert_close(apply(params, case.query, case.support), jnp.stack(alone), rtol=1e-4, atol=1e-5)


@every_model
@pytest.mark.parametrize("mode", ["transductive", "inductive"])
def test_the_gradient_of_a_loss_is_that_of_differences(case, mode):
    with contracts.float64():
        params, support, query = contracts.to_float64((case.params, case.support, case.query))
        params = jax.tree.map(
            lambda leaf, noise: leaf + 0.1 * noise, params, contracts.normal_like(params, 9)
        )
        reference = support if mode == "inductive" else None

        def loss(params):
            return jnp.mean(jnp.sin(case.model.apply(params, query, reference=reference)))

        contracts.assert_gradient_is_that_of(loss, jax.jit(jax.grad(loss))(params), params)


@pytest.mark.parametrize(("name", "normalisation"), [model for model in MODELS if model[1] == "batch"])
def test_without_a_reference_batch_normalisation_lets_queries_see_each_other(case):
    together, replaced = (
        case.apply(case.params, queries) for queries in (case.query, case.others_replaced())
    )
    assert np.abs(together[0] - replaced[0]).max() > 1e-3


@pytest.mark.parametrize(("name", "normalisation"), [model for model in MODELS if model[1] == "batch"])
def test_with_a_reference_batch_normalisation_depends_on_it(case):
    own, other = (case.apply(case.params, case.query, ref) for ref in (case.support, 5 * case.support))
    assert np.abs(own - other).max() > 1e-3


@every_model
def test_with_the_support_as_reference_no_query_depends_on_another(case):
    together = case.apply(case.params, case.query, case.support)
    replaced = case.apply(case.params, case.others_replaced(), case.support)
    np.testing.assert_allclose(replaced[0], together[0], rtol=1e-5, atol=1e-6)
    alone = [case.apply(case.params, query[None], case.support)[0] for query in case.query]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-5, atol=1e-6)


@every_model
def test_a_reference_of_the_same_examples_is_no_reference(case):
    own = case.apply(case.params, case.query, case.query)
    np.testing.assert_allclose(own, case.apply(case.params, case.query), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "normalisation"), [model for model in MODELS if model[1] in ("layer", "none")]
)
def test_without_batch_statistics_the_reference_is_ignored_and_queries_are_independent(case):
    plain = case.apply(case.params, case.query)
    contracts.assert_equal(case.apply(case.params, case.query, case.support), plain)
    np.testing.assert_allclose(
        case.apply(case.params, case.others_replaced())[0], plain[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("normalisation", ["batch", "layer", "none"])
@pytest.mark.parametrize("name", ["mlp"])
def test_mlp_is_dense_layers_around_normalisation_and_activation(case, normalisation):
    params = contracts.normal_like(case.params, 5)

    def dense(inputs, layer):
        return inputs @ layer["kernel"] + layer["bias"][None]

    support, query = (np.asarray(part).reshape(len(part), -1) for part in (case.support, case.query))
    for index in range(2):
        support, query = (dense(part, params[f"hidden_{index}"]) for part in (support, query))
        if normalisation != "none":
            norm = params[f"norms_{index}"]
            support, query = numpy_normalised(support, query, normalisation, norm)
        support, query = np.maximum(support, 0), np.maximum(query, 0)
    expected = dense(query, params["head"])
    np.testing.assert_allclose(
        case.apply(params, case.query, case.support), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )


def numpy_normalised(support, query, kind: str, norm):
    """Both parts after normalisation over all axes but the last (batch, by the support) or the first (layer)."""

    def apply(part, source, axes):
        mean, variance = source.mean(axes, keepdims=True), source.var(axes, keepdims=True)
        shape = (1,) * (part.ndim - 1) + (-1,)
        scale, offset = (np.asarray(norm[name]).reshape(shape) for name in ("scale", "offset"))
        return (part - mean) / np.sqrt(variance + 1e-3) * scale + offset

    support, query = np.asarray(support), np.asarray(query)
    if kind == "batch":
        axes = tuple(range(support.ndim - 1))
        return apply(support, support, axes), apply(query, support, axes)
    axes = tuple(range(1, support.ndim))
    return apply(support, support, axes), apply(query, query, axes)


@pytest.mark.parametrize("downsample", ["stride", "max_pool"])
@pytest.mark.parametrize("normalisation", ["batch", "layer", "none"])
def test_conv4_is_convolutions_normalisation_and_half_the_size_four_times(normalisation, downsample):
    given = {"normalisation": normalisation, "downsample": downsample, "head": "flatten"}
    model = contracts.build_model("conv4", base.Spec((16, 16, 1), 3), **given)
    support, query = (jax.random.normal(jax.random.key(i), (2 + i, 16, 16, 1)) for i in range(2))
    params = contracts.normal_like(model.init(KEY, support), 7)
    expected = jnp.concatenate([support, query])
    for index in range(4):
        block, stride = params[f"blocks_{index}"], 2 if downsample == "stride" else 1
        expected = jax.lax.conv_general_dilated(
            expected, block["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if normalisation != "batch":
            expected += block["bias"][None, None, None]
        if normalisation != "none":
            parts = expected[:2], expected[2:]
            expected = np.concatenate(numpy_normalised(*parts, normalisation, block["Normalisation_0"]))
        expected = np.maximum(expected, 0)
        if downsample == "max_pool":
            expected = jax.lax.reduce_window(
                expected, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
            )
    expected = np.asarray(expected)[2:].reshape(3, -1)
    features = jax.jit(model.embed)(params, query, reference=support)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def shapes_of_conv4(size: int = 28, **options):
    """The shapes of the parameters, and of the features of two pictures, without computing either."""
    model = conv4.build(conv4.Config(**options), base.Spec((size, size, 1), 5))
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
        conv4.build(conv4.Config(), base.Spec((40,), 5))


def test_conv4_refuses_pictures_that_max_pooling_would_shrink_to_nothing():
    with pytest.raises(ValueError, match="16 pixels"):
        conv4.build(conv4.Config(downsample="max_pool"), base.Spec((15, 28, 1), 5))
    conv4.build(conv4.Config(downsample="max_pool"), base.Spec((16, 16, 1), 5))
    conv4.build(conv4.Config(downsample="stride"), base.Spec((8, 8, 1), 5))


@pytest.mark.parametrize(("name", "normalisation"), [("mlp", "none"), ("conv4", "batch")])
def test_a_model_without_modulation_refuses_a_condition(case):
    with pytest.raises(ValueError, match="condition"):
        case.model.apply(case.params, case.query, condition=jnp.zeros(2))
