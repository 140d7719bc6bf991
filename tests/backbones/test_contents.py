"""A model's options come from its file of weights, and a file of another network is refused before it is read."""

import dataclasses
import json
import struct
import weakref
from pathlib import Path

import numpy as np
import pytest

from metarun import errors, plugins
from metarun.backbones import contents, safetensors_file

FOLDER = Path(__file__).parent
VIT, RESNET, CLIP = (
    FOLDER / f"{name}.safetensors" for name in ("dinov2_registers", "resnet_bottleneck", "clip")
)


def make_config(model: str, **options):
    return plugins.read_config_class("model", model)(**options)


def copy_arrays(path: Path, to: Path, change) -> Path:
    """A copy of a file after `change`, which gets and returns {name: array}; numbers become float32."""
    file = safetensors_file.open_file(path)
    arrays = change({name: file.read(name) for name in file.entries if file.entries[name].dtype != "I64"})
    header: dict = {"__metadata__": dict(file.metadata)}
    body = b""
    for name, array in arrays.items():
        raw = np.asarray(array, np.float32).tobytes()
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    to.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return to


def test_the_options_of_a_vision_transformer_are_those_of_its_file():
    config = make_config("vit", weights=str(VIT))
    expected = {"layout": "dinov2", "width": 16, "depth": 1, "heads": 2, "patch": 4, "feedforward": 24}
    expected |= {"registers": 2, "layer_scale": True, "norm_before": False, "patch_bias": True}
    expected |= {"class_position": True, "projection": 0, "activation": "gelu", "epsilon": 1e-6}
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_options_of_clip_are_those_of_its_file():
    config = make_config("vit", weights=str(CLIP))
    expected = {"layout": "clip", "norm_before": True, "patch_bias": False, "projection": 10}
    expected |= {"activation": "quick_gelu", "epsilon": 1e-5}
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_options_of_a_residual_network_are_those_of_its_file():
    config = make_config("resnet", weights=str(RESNET))
    assert (config.layout, config.width, config.blocks, config.bottleneck, config.projection) == (
        "torchvision",
        4,
        (2, 1),
        True,
        0,
    )


def test_options_that_are_all_there_need_no_file(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(VIT.read_bytes())
    config = make_config("vit", weights=str(path))
    path.unlink()
    assert dataclasses.replace(config) == config
    with pytest.raises(errors.DataError, match=r"there is no a\.safetensors"):
        make_config("vit", weights=str(path))


def test_weights_have_their_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER)
    assert make_config("resnet", weights=RESNET.name).weights == str(RESNET)


def test_options_may_say_what_the_file_does_not(tmp_path):
    without = copy_arrays(VIT, tmp_path / "a.safetensors", lambda arrays: arrays)
    text = without.read_bytes().replace(b'"heads"', b'"hands"')
    without.write_bytes(text)
    with pytest.raises(ValueError, match="does not say heads"):
        make_config("vit", weights=str(without))
    assert make_config("vit", weights=str(without), heads=4).heads == 4


def test_an_option_against_the_file_is_refused():
    with pytest.raises(errors.DataError, match=r"of another shape: .*\[1, 1, 16\] and not \[1, 1, 32\]"):
        make_config("vit", weights=str(VIT), width=32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: {name: arrays[name] for name in arrays if name != "norm.bias"}, "missing: norm.bias"),
        (
            lambda arrays: arrays | {"blocks.0.attn.q_norm.weight": np.ones(4)},
            "too much: blocks.0.attn.q_norm",
        ),
        (
            lambda arrays: arrays | {"norm.bias": np.ones(4)},
            r"of another shape: norm.bias is \[4\] and not \[16\]",
        ),
        (lambda arrays: {"words": np.ones(4)}, "holds no vit .* words"),
        (lambda arrays: arrays | {"pos_embed": np.ones((1, 12, 16))}, "no square of patches"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, words):
    path = copy_arrays(VIT, tmp_path / "a.safetensors", change)
    with pytest.raises(errors.DataError, match=words):
        make_config("vit", weights=str(path))


def test_a_negative_variance_is_refused_when_it_is_read(tmp_path):
    path = copy_arrays(
        RESNET,
        tmp_path / "a.safetensors",
        lambda arrays: arrays | {"module.backbone.bn1.running_var": -np.ones(4)},
    )
    config = make_config("resnet", weights=str(path))
    with pytest.raises(errors.DataError, match="not finite"):
        contents.read_tree("resnet", vars(config), None)


def test_a_network_of_absurdly_many_stages_is_refused_at_once(tmp_path):
    stages = {f"module.backbone.layer{index}.0.conv1.weight": np.ones(1) for index in range(3, 20)}
    path = copy_arrays(RESNET, tmp_path / "a.safetensors", lambda arrays: arrays | stages)
    with pytest.raises(errors.DataError, match="more than 8 stages"):
        make_config("resnet", weights=str(path))


def test_a_file_of_an_unknown_network_is_refused(tmp_path):
    path = copy_arrays(VIT, tmp_path / "a.safetensors", lambda arrays: {"words": np.ones(4)})
    with pytest.raises(errors.DataError, match="vit or resnet"):
        contents.find_model(path)


def test_a_model_refuses_the_file_of_the_other():
    with pytest.raises(errors.DataError, match="holds no resnet"):
        make_config("resnet", weights=str(VIT))


def test_one_array_after_the_other_is_read_and_not_the_whole_file_at_once():
    """An array is free as soon as it lies on the device, so a large file does not take twice its size."""
    options = vars(make_config("resnet", weights=str(RESNET)))
    before: list[weakref.ref] = []

    def place(array):
        assert all(reference() is None for reference in before)
        before.append(weakref.ref(array))

    contents.read_tree("resnet", options, None, place)
    assert len(before) > 20
