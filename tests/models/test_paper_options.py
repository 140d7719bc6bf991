"""Options of mlp and conv4 that the papers' networks have: additional inputs, first weights, the normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, gradients, trees
from metarun import base, errors
from metarun.algorithms.fusion import weight_matching

KEY = jax.random.key(0)
VECTORS = base.Spec((2,), 2, "numbers")
PICTURES = base.Spec((4, 4, 1), 3, "classes")


def draw_inputs(spec: base.Spec, seed: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *spec.input_shape)).astype(np.float32)


def make_network(name: str, spec: base.Spec, **options) -> tuple[base.Model, base.PyTree]:
    """Return a small model, and random parameters for it."""
    model = builders.build_model(name, spec, **options)
    shapes = jax.eval_shape(lambda inputs: model.init(KEY, inputs), draw_inputs(spec, 0))
    return model, trees.normal_like(shapes, 1)


def start(name: str, spec: base.Spec, **options) -> base.PyTree:
    model = builders.build_model(name, spec, **options)
    return jax.tree.map(np.asarray, jax.jit(model.init)(KEY, draw_inputs(spec, 0)))


def test_additional_inputs_are_a_first_bias_that_is_a_product():
    """b + z·V, where V are the rows of the first kernel that belong to the additional inputs z."""
    model, params = make_network("mlp", VECTORS, hidden=(5, 4), extra_inputs=3)
    plain, _ = make_network("mlp", VECTORS, hidden=(5, 4))
    kernel, bias = (np.asarray(params["hidden_0"][name]) for name in (base.KERNEL, base.BIAS))
    first = {base.KERNEL: kernel[:2], base.BIAS: bias + np.asarray(params["extra_inputs"]) @ kernel[2:]}
    joined = {name: part for name, part in params.items() if name != "extra_inputs"} | {"hidden_0": first}
    inputs = draw_inputs(VECTORS, 2)
    np.testing.assert_allclose(model.apply(params, inputs), plain.apply(joined, inputs), rtol=1e-5, atol=1e-5)
    outputs = model.apply(params | {"extra_inputs": jnp.zeros(3)}, inputs)
    assert np.abs(np.asarray(outputs) - np.asarray(plain.apply(joined, inputs))).max() > 1e-2


def test_the_gradient_in_the_additional_inputs_is_that_of_differences():
    with gradients.float64():
        model, params = make_network("mlp", VECTORS, hidden=(3,), activation="tanh", extra_inputs=2)
        inputs = draw_inputs(VECTORS, 2).astype(np.float64)

        def loss(params):
            return jnp.mean(jnp.sin(model.apply(params, inputs)))

        gradients.assert_gradient_is_that_of_differences(loss, gradients.to_float64(params))


def test_additional_inputs_start_at_zero_beside_a_condition_and_belong_to_no_layer():
    params = start("mlp", VECTORS, hidden=(5,), extra_inputs=3)
    np.testing.assert_array_equal(params["extra_inputs"], np.zeros(3))
    model = builders.build_model("mlp", VECTORS, hidden=(5,), extra_inputs=3)
    conditioned = jax.eval_shape(
        lambda inputs: model.init(KEY, inputs, condition=jnp.ones(4)), draw_inputs(VECTORS, 0)
    )
    assert conditioned["hidden_0"][base.KERNEL].shape == (2 + 3 + 4, 5)
    for count in (3, 5):  # 5 is the number of units, too
        shapes = start("mlp", VECTORS, hidden=(5,), extra_inputs=count)
        with pytest.raises(errors.ConfigError, match="extra_inputs is no part of one"):
            weight_matching.find_chain(shapes)


@pytest.mark.parametrize("initial", ["uniform", "uniform_by_units", "normal"])
def test_first_weights_have_the_distribution_that_is_named(initial):
    params = start("mlp", base.Spec((40,), 2, "numbers"), hidden=(90,), initial=initial)
    for layer, (inputs, units) in (("hidden_0", (40, 90)), (base.HEAD, (90, 2))):
        kernel, bias = (params[layer][name] for name in (base.KERNEL, base.BIAS))
        assert kernel.shape == (inputs, units)
        if initial == "normal":
            np.testing.assert_array_equal(bias, 0)
            np.testing.assert_allclose(kernel.std(), 0.01, rtol=0.15)
        else:
            bound = (inputs if initial == "uniform" else units) ** -0.5
            assert 0.95 * bound < np.abs(kernel).max() <= bound
            assert 0 < np.abs(bias).max() <= bound


def test_a_normalisation_without_scale_is_one_whose_scale_is_one():
    options = {"width": 3, "depth": 2, "normalisation": "batch"}
    model, params = make_network("conv4", PICTURES, scale=False, **options)
    plain, full = make_network("conv4", PICTURES, **options)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert not any(base.SCALE in path for path in paths)
    assert sum(base.OFFSET in path for path in paths) == 2
    ones = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.ones_like(leaf) if path[-1].key == base.SCALE else leaf, full
    )
    for block in ("blocks_0", "blocks_1"):
        norm = next(name for name in params[block] if name != base.KERNEL)
        ones[block] = params[block] | {norm: ones[block][norm] | params[block][norm]}
    ones[base.HEAD] = params[base.HEAD]
    inputs = draw_inputs(PICTURES, 2)
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, inputs), jax.jit(plain.apply)(ones, inputs), rtol=1e-5, atol=1e-5
    )


def test_a_leaky_relu_lets_a_hundredth_of_what_is_negative_pass():
    """With one block and no normalisation, relu(x) − 0.01 relu(−x) is the difference of two networks of relu."""
    options = {"width": 3, "depth": 1, "normalisation": "none", "head": "flatten"}
    leaky, params = make_network("conv4", PICTURES, activation="leaky_relu", **options)
    plain, _ = make_network("conv4", PICTURES, **options)
    turned = params | {"blocks_0": jax.tree.map(jnp.negative, params["blocks_0"])}
    inputs = draw_inputs(PICTURES, 2)
    expected = plain.embed(params, inputs) - 0.01 * plain.embed(turned, inputs)
    np.testing.assert_allclose(leaky.embed(params, inputs), expected, rtol=1e-5, atol=1e-6)
    assert np.min(leaky.embed(params, inputs)) < 0


def test_the_last_layer_starts_with_the_deviation_that_is_named():
    options = {"width": 64, "depth": 1, "head": "flatten"}
    wide = base.Spec((4, 4, 1), 20, "classes")
    for deviation, expected in ((1.0, 1.0), (None, 256**-0.5)):
        head = start("conv4", wide, head_deviation=deviation, **options)[base.HEAD]
        np.testing.assert_allclose(head[base.KERNEL].std(), expected, rtol=0.05)
        np.testing.assert_array_equal(head[base.BIAS], 0)


def test_no_query_joins_the_support_where_nothing_is_normalised_over_examples():
    with pytest.raises(ValueError, match="normalisation is layer"):
        builders.build_model("conv4", PICTURES, inductive="support_and_query", normalisation="layer")


def test_a_query_that_joins_the_support_is_normalised_by_the_support_and_itself():
    options = {"width": 3, "depth": 2, "normalisation": "batch"}
    model, params = make_network("conv4", PICTURES, inductive="support_and_query", **options)
    support, query = draw_inputs(PICTURES, 2), draw_inputs(PICTURES, 3, 2)
    apply = jax.jit(lambda inputs, reference=None: model.apply(params, inputs, reference=reference))
    found = np.asarray(apply(query, support))
    joint = [np.asarray(apply(np.concatenate([support, one[None]])))[-1] for one in query]
    np.testing.assert_allclose(found, np.stack(joint), rtol=1e-5, atol=1e-5)
    usual, _ = make_network("conv4", PICTURES, **options)
    assert np.abs(found - np.asarray(jax.jit(usual.apply)(params, query, reference=support))).max() > 1e-3
    own = jax.jit(lambda inputs: model.apply(params, inputs, reference=inputs))(support)
    np.testing.assert_allclose(own, apply(support), rtol=1e-5, atol=1e-5)
