"""The names in the parameters of every model mean what `base.Model` says, because algorithms rely on them."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, trees
from metarun import base, plugins

KEY = jax.random.key(0)
CONDITION = 3  # numbers in a condition
CHAINS = ("mlp", "conv4")  # plain chains of hidden layers


def variants(name: str) -> list[dict[str, Any]]:
    """Return the values of the options that decide which parameters the model has."""
    known = {field.name for field in plugins.list_fields("model", name)}
    kinds = (
        [{"normalisation": kind} for kind in ("batch", "layer", "none")] if "normalisation" in known else [{}]
    )
    return [kind | ({"modulation": "features"} if "modulation" in known else {}) for kind in kinds]


MODELS = [(name, options) for name in plugins.list_names("model") for options in variants(name)]
every_model = pytest.mark.parametrize(("name", "options"), MODELS)


@functools.cache
def accepted_spec(name: str) -> base.Spec:
    """Return the first of the specs for which the model can be built."""
    for spec in builders.SPECS:
        try:
            builders.build_model(name, spec)
        except ValueError:
            continue
        return spec
    raise AssertionError(f"{name} refuses every spec of builders.SPECS: add one that it accepts")


def build(name: str, options: dict[str, Any]) -> tuple[base.Model, base.PyTree]:
    """Return the model and some inputs for it."""
    spec = accepted_spec(name)
    inputs = builders.inputs_for(spec, np.random.default_rng(0), 3)
    return builders.build_model(name, spec, **options), jax.tree.map(jax.device_put, inputs)


def shapes(model: base.Model, inputs: base.PyTree, condition=None) -> dict[str, Any]:
    """Return the parameters as shapes."""
    return jax.eval_shape(lambda key: model.init(key, inputs, condition=condition), KEY)


def list_groups(params: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Yield every dict of the tree and the way to it."""
    yield path, params
    for name, value in params.items():
        if isinstance(value, dict):
            yield from list_groups(value, (*path, name))


@every_model
def test_a_model_has_one_head_at_the_outermost_level_and_usually_a_body(name, options):
    model, inputs = build(name, options)
    params = shapes(model, inputs)
    paths = [(*path, name) for path, group in list_groups(params) for name in group]
    assert [path for path in paths if base.HEAD in path[:1]]
    assert not [path for path in paths if base.HEAD in path[1:]]
    outputs = jax.eval_shape(model.apply, params, inputs).shape[-1]
    assert params[base.HEAD][base.KERNEL].shape[-1] == outputs == accepted_spec(name).output_size
    if params.keys() == {base.HEAD}:  # then the features are the inputs themselves
        assert name == "affine"


@every_model
def test_the_features_do_not_use_the_head(name, options):
    model, inputs = build(name, options)
    params = trees.normal_like(shapes(model, inputs), 1)
    body = {name: value for name, value in params.items() if name != base.HEAD}
    without, features = jax.jit(lambda *trees: [model.embed(tree, inputs) for tree in trees])(body, params)
    np.testing.assert_array_equal(without, features)


@every_model
def test_a_bias_fits_the_kernel_or_the_scale_beside_it(name, options):
    model, inputs = build(name, options)
    for path, group in list_groups(shapes(model, inputs)):
        if base.KERNEL in group:
            assert group[base.KERNEL].ndim >= 2, path
        if base.BIAS in group:
            beside = group.get(base.KERNEL, group.get(base.SCALE))
            assert group[base.BIAS].shape == beside.shape[-1:], path


@every_model
def test_scale_and_offset_belong_to_normalisations_alone(name, options):
    model, inputs = build(name, options)
    groups = dict(list_groups(shapes(model, inputs)))
    normalisations = {
        path: group for path, group in groups.items() if {base.SCALE, base.OFFSET} & group.keys()
    }
    if options.get("normalisation", "none") == "none" and name not in ("resnet", "seq2seq", "vit"):
        assert not normalisations
    else:
        assert normalisations
    for path, group in normalisations.items():
        assert group.keys() in ({base.SCALE, base.OFFSET}, {base.SCALE, base.BIAS}), path
        scale, offset = group.values()
        assert scale.shape == offset.shape and scale.ndim == 1, path


@pytest.mark.parametrize("normalisation", ["batch", "layer"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_normalisation_stands_behind_the_layer_of_its_number(name, normalisation):
    """So a larger kernel and bias in front of the normalisation change next to nothing."""
    model, inputs = build(name, {"normalisation": normalisation})
    params = trees.normal_like(shapes(model, inputs), 2)
    layer = next(key for key in params if key.endswith("_0") and base.KERNEL in params[key])
    affine = (base.KERNEL, base.BIAS)
    larger = {
        key: np.float32(100) * np.asarray(value) if key in affine else value
        for key, value in params[layer].items()
    }
    apply = jax.jit(model.apply)
    outputs, scaled = (np.asarray(apply(tree, inputs)) for tree in (params, params | {layer: larger}))
    np.testing.assert_allclose(scaled, outputs, rtol=0.05, atol=0.05 * np.abs(outputs).max())


@every_model
def test_modulation_maps_exist_only_for_a_condition(name, options):
    model, inputs = build(name, options)
    plain = list_groups(shapes(model, inputs))
    assert not [path for path, group in plain if set(base.MODULATION) & group.keys()]
    try:
        params = shapes(model, inputs, jnp.ones(CONDITION))
    except ValueError:
        assert name in ("affine", "seq2seq")  # models that take no condition
        return
    modulations = [group for _, group in list_groups(params) if set(base.MODULATION) & group.keys()]
    assert modulations
    for group in modulations:
        assert group.keys() == set(base.MODULATION)
        scale_map, offset_map = group.values()
        assert scale_map.shape == offset_map.shape
        assert scale_map.shape[0] == CONDITION


@pytest.mark.parametrize(("name", "options"), [model for model in MODELS if model[0] in CHAINS])
def test_the_hidden_layers_of_a_chain_are_numbered_from_0(name, options):
    params = shapes(*build(name, options))
    kernels = [path for path, group in list_groups(params) if base.KERNEL in group and path != (base.HEAD,)]
    numbers = [re.fullmatch(r"[a-z]+_(\d+)", *path) for path in kernels]
    assert sorted(int(match[1]) for match in numbers) == list(range(len(kernels)))
    assert len(kernels) == 2  # the depth of both in builders.TINY
    outermost = params.keys() - {base.HEAD}
    assert all(re.fullmatch(r"[a-z]+_\d+", key) and int(key.split("_")[1]) < 2 for key in outermost)
