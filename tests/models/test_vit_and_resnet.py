"""vit and resnet: what begins from a file of weights, and what the options of their shape do."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import gradients, trees
from metarun import base, errors
from metarun.backbones import contents
from metarun.models import _convolution, resnet, vit

FOLDER = Path(__file__).parents[1] / "backbones"
KEY = jax.random.key(0)
SPEC = base.Spec((16, 16, 3), 3, "classes")


def copy_weights(name: str, folder: Path) -> Path:
    path = folder / "weights.safetensors"
    path.write_bytes((FOLDER / f"{name}.safetensors").read_bytes())
    return path


def draw_pictures(shape: tuple[int, ...], seed: int = 0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_model_begins_as_its_file_with_a_new_head_and_opens_without_it(tmp_path):
    path = copy_weights("timm", tmp_path)
    config = vit.Config(weights=str(path))
    model, pictures = vit.build(config, SPEC), jnp.asarray(draw_pictures((2, 16, 16, 3)))
    init = jax.jit(lambda key: model.init(key, pictures))
    first, second = init(KEY), init(jax.random.key(1))
    body = {name: leaf for name, leaf in first.items() if name != base.HEAD}
    trees.assert_equal(body, contents.read_tree("vit", vars(config), (4, 4)))
    assert first[base.HEAD][base.KERNEL].shape == (16, 3)
    assert np.any(first[base.HEAD][base.KERNEL] != second[base.HEAD][base.KERNEL])
    path.unlink()  # a finished run is opened: the config is bound again, the start is traced, the weights are restored
    model = vit.build(dataclasses.replace(config), SPEC)
    shapes = jax.eval_shape(lambda key: model.init(key, pictures), KEY)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, first)
    assert model.embed(first, pictures).shape == (2, 16)


def test_a_file_that_is_gone_when_a_training_starts_is_said(tmp_path):
    path = copy_weights("timm", tmp_path)
    model = vit.build(vit.Config(weights=str(path)), SPEC)
    path.unlink()
    with (
        pytest.raises(errors.DataError, match=r"there is no weights\.safetensors"),
        contents.raise_failures(),
    ):
        jax.block_until_ready(jax.jit(lambda key: model.init(key, jnp.zeros((1, 16, 16, 3))))(KEY))


def test_replicas_begin_from_one_reading_of_the_file(tmp_path, monkeypatch):
    model = vit.build(vit.Config(weights=str(copy_weights("timm", tmp_path))), SPEC)
    read, counted = contents.read_tree, []
    monkeypatch.setattr(contents, "read_tree", lambda *given: counted.append(1) or read(*given))
    pictures = jnp.asarray(draw_pictures((2, 16, 16, 3)))
    params = jax.jit(jax.vmap(lambda key: model.init(key, pictures)))(jax.random.split(KEY, 3))
    kernels = np.asarray(params["patches"][base.KERNEL])
    assert kernels.shape[0] == 3
    assert np.all(kernels == kernels[:1])
    assert len(counted) == 1


def test_grey_pictures_stand_in_all_three_channels(tmp_path):
    config = vit.Config(weights=str(copy_weights("timm", tmp_path)))
    params, grey = contents.read_tree("vit", vars(config), (4, 4)), draw_pictures((2, 16, 16, 1))
    model = vit.build(config, SPEC._replace(input_shape=(16, 16, 1)))
    embed = jax.jit(model.embed)
    np.testing.assert_array_equal(embed(params, grey), embed(params, np.repeat(grey, 3, axis=3)))


@pytest.mark.parametrize(("module", "name"), [(vit, "dinov2"), (resnet, "resnet")])
def test_a_condition_of_zeros_changes_nothing_and_another_one_does(module, name):
    model = module.build(module.Config(weights=str(FOLDER / f"{name}.safetensors")), SPEC)
    pictures = draw_pictures((2, 16, 16, 3))

    @jax.jit
    def compute(pictures):
        params = model.init(KEY, pictures, condition=jnp.ones(4))
        body = jax.tree.map(jnp.asarray, contents.read_tree(name_of(module), vars_of(module, name), (4, 4)))
        plain = {**body, base.HEAD: params[base.HEAD]}
        return model.apply(plain, pictures), [
            model.apply(params, pictures, condition=jnp.full(4, value)) for value in (0.0, 1.0)
        ]

    plain, (zeros, ones) = compute(pictures)
    np.testing.assert_allclose(zeros, plain, rtol=1e-5, atol=1e-6)
    assert np.abs(ones - zeros).max() > 1e-2


def name_of(module) -> str:
    return module.__name__.rpartition(".")[2]


def vars_of(module, name: str) -> dict:
    return vars(module.Config(weights=str(FOLDER / f"{name}.safetensors")))


def test_pictures_that_do_not_fit_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="whole number of patches") as refused:
        vit.build(vit.Config(patch=4), base.Spec((18, 16, 3), 3, "classes"))
    assert "task.size=16" in refused.value.args[1]
    for module in (vit, resnet):
        with pytest.raises(ValueError, match="pictures"):
            module.build(module.Config(), base.Spec((40,), 3, "classes"))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        weights = str(FOLDER / "resnet.safetensors")
        resnet.build(resnet.Config(weights=weights), base.Spec((16, 16, 4), 3, "classes"))
    with pytest.raises(ValueError, match="do not divide"):
        vit.Config(width=10, heads=3)
    with pytest.raises(ValueError, match="bottlenecks"):
        resnet.Config(layout="clip")
    with pytest.raises(ValueError, match="at least 8 pixels"):
        clip = resnet.Config(layout="clip", bottleneck=True, blocks=(1, 1))
        resnet.build(clip, base.Spec((6, 16, 3), 3, "classes"))


def test_batch_statistics_take_scale_and_offset_of_the_file_as_they_are():
    """With `statistics: batch` the support normalises, so nothing is folded."""
    path = FOLDER / "resnet.safetensors"
    fixed, batch = (resnet.Config(weights=str(path), statistics=kind) for kind in ("fixed", "batch"))
    trees_of = [contents.read_tree("resnet", vars(config), None) for config in (fixed, batch)]
    scales = [np.asarray(tree["stem_0"]["norm"]["scale"]) for tree in trees_of]
    assert np.abs(scales[0] - scales[1]).max() > 1e-2
    model = resnet.build(batch, SPEC)
    pictures = draw_pictures((2, 16, 16, 3))
    embed = jax.jit(lambda params, query, support: model.embed(params, query, reference=support))
    own, other = (np.asarray(embed(trees_of[1], pictures, factor * pictures + 1)) for factor in (1, 3))
    assert np.abs(own - other).max() > 1e-3


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "window", "padding"), [((6, 7), 3, 1), ((9, 8), 7, 3), ((5, 4), 1, 0)])
def test_padding_as_pytorch_counts_it_is_the_same_in_both_forms(size, window, padding, stride):
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((2, *size, 2)).astype(np.float32)
    kernel = generator.standard_normal((window, window, 2, 3)).astype(np.float32)

    @jax.jit
    def compute(inputs, kernel):
        return [
            jax.value_and_grad(
                lambda *given, form=form: jnp.sum(
                    jnp.sin(_convolution.convolve(*given, stride, form, padding))
                ),
                (0, 1),
            )(inputs, kernel)
            for form in ("products", "native")
        ]

    products, native = compute(inputs, kernel)
    trees.assert_close(products, native, rtol=1e-4, atol=1e-4)


def test_max_pool_and_its_slope_are_those_of_a_reduced_window():
    inputs = np.maximum(draw_pictures((2, 7, 6, 2)), 0)

    def reduce_windows(inputs):
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        return jax.lax.reduce_window(inputs, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), around)

    @jax.jit
    def compute(inputs):
        return [
            (pool(inputs), jax.grad(lambda x, pool=pool: jnp.sum(pool(jax.nn.relu(x)) ** 2))(inputs))
            for pool in (resnet.max_pool, reduce_windows)
        ]

    ours, theirs = compute(inputs)
    trees.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_all_options_of_the_shape_can_be_given_without_a_file():
    options = {"width": 8, "depth": 1, "heads": 2, "patch": 8, "feedforward": 12, "registers": 3}
    options |= {"layer_scale": True, "norm_before": True, "patch_bias": False, "class_position": False}
    options |= {"projection": 5, "activation": "quick_gelu", "epsilon": 1e-5, "layout": "timm"}
    model = vit.build(vit.Config(**options), SPEC)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(model.init, KEY, jnp.zeros((1, 16, 16, 3))))
    assert shapes["registers"] == (3, 8)
    assert shapes["positions"] == (4, 8)
    assert shapes["patches"] == {"kernel": (192, 8)}
    assert shapes["projection"] == {"kernel": (8, 5)}
    assert shapes["head"]["kernel"] == (5, 3)
    assert shapes["norm_before"] == {"scale": (8,), "offset": (8,)}
    assert shapes["blocks_0"]["gain_attention"] == (8,)
    network = resnet.Config(
        width=4, blocks=(1, 1), bottleneck=True, layout="clip", projection=6, convolution="native"
    )
    model = resnet.build(network, base.Spec((32, 32, 3), 3, "classes"))
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(model.init, KEY, jnp.zeros((1, 32, 32, 3))))
    assert shapes["pool"]["attention"]["mix"]["kernel"] == (32, 6)
    assert shapes["stem_1"]["kernel"] == (3, 3, 2, 2)


def test_max_pool_has_a_second_derivative():
    def length(inputs):
        slope = jax.grad(lambda inputs: jnp.sum(resnet.max_pool(inputs) ** 3))(inputs)
        return jnp.sum(slope**2)

    with gradients.float64():
        inputs = jnp.asarray(1 + np.abs(draw_pictures((1, 4, 4, 1))), jnp.float64)
        gradients.assert_gradient_is_that_of_differences(length, inputs)
