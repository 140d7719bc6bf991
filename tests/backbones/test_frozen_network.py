"""open_backbone: features of a file are those of the published module, and what is shown says what they come from."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from metarun import errors, plugins
from metarun.backbones import contents, frozen_network, open_backbone, published, safetensors_file

FOLDER = Path(__file__).parent
TINY = {"tiny": ("resnet", {"width": 4, "blocks": (1, 1)}), "other": ("resnet", {"width": 4, "blocks": (1,)})}


@pytest.fixture
def tiny(monkeypatch):
    """A network of random weights that compiles in a moment."""
    monkeypatch.setattr(published, "SIZES", TINY)
    monkeypatch.setattr(published, "SIDE", 32)


def get(name: str) -> np.ndarray:
    with np.load(FOLDER / "references.npz") as stored:
        return stored[name]


def copy_with_metadata(name: str, to: Path, **texts: str | None) -> Path:
    """A copy of a file with other metadata; None: without."""
    content = (FOLDER / f"{name}.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.get("__metadata__", {}) | texts
    header["__metadata__"] = {key: text for key, text in metadata.items() if text is not None}
    text = json.dumps(header).encode()
    to.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return to


@pytest.mark.parametrize("name", ["timm", "resnet"])
def test_features_are_those_of_the_published_module(name):
    backbone = open_backbone(FOLDER / f"{name}.safetensors")
    pictures, expected = get(f"{'vit' if name == 'timm' else name}/inputs"), get(f"{name}/features")
    features = backbone.extract(pictures)
    assert features.dtype == np.float32
    assert features.shape[1] == backbone.features
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert f"{name}.safetensors" in backbone.label
    assert "random" not in backbone.label


def test_each_number_of_pictures_is_compiled_once():
    backbone = open_backbone(FOLDER / "timm.safetensors")
    first, second = (backbone.extract(get("vit/inputs")) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert backbone.embed.func._cache_size() == 1


def test_bfloat16_is_near_and_has_another_digest():
    path = FOLDER / "timm.safetensors"
    full, half = open_backbone(path), open_backbone(path, precision="bfloat16")
    expected, features = (backbone.extract(get("vit/inputs")) for backbone in (full, half))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=0.05 * np.abs(expected).max())
    assert np.any(features != expected)
    assert full.digest != half.digest
    assert full.digest == open_backbone(path).digest


def test_the_digest_is_of_the_bytes_and_not_of_the_place(tmp_path):
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes((FOLDER / "resnet.safetensors").read_bytes())
    changed = copy_with_metadata("resnet", tmp_path / "changed.safetensors", origin="elsewhere")
    paths = (FOLDER / "resnet.safetensors", moved, changed)
    first, same, other = (open_backbone(path).digest for path in paths)
    assert first == same
    assert first != other


def test_random_weights_are_a_function_of_the_seed_and_say_so(tiny):
    first, same, other = (open_backbone(None, model="tiny", seed=seed) for seed in (0, 0, 1))
    assert "random weights" in first.label
    assert first.digest == same.digest != other.digest
    pictures = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    features = [backbone.extract(pictures) for backbone in (first, same, other)]
    np.testing.assert_array_equal(features[0], features[1])
    assert np.any(features[0] != features[2])
    assert np.all(np.isfinite(features[0]))
    assert 0.05 < features[0].std() < 20  # no blow-up without statistics


def test_pictures_of_another_size_have_positions_of_their_own():
    backbone = open_backbone(FOLDER / "timm.safetensors", size=8)
    assert backbone.preparation.size == backbone.preparation.shorter == 8
    assert backbone.extract(np.zeros((1, 8, 8, 3), np.float32)).shape == (1, backbone.features)
    with pytest.raises(errors.UsageError, match="no whole number of patches"):
        open_backbone(FOLDER / "timm.safetensors", size=9)


def test_a_file_that_does_not_say_all_and_an_unknown_precision_are_refused(tmp_path):
    silent = copy_with_metadata("timm", tmp_path / "silent.safetensors", heads=None)
    with pytest.raises(errors.DataError, match="does not say heads") as refused:
        open_backbone(silent)
    assert "metadata" in refused.value.remedy
    with pytest.raises(errors.UsageError, match="no precision float64"):
        frozen_network.open_network(silent, None, 0, "float64", None)


def test_a_network_that_is_not_known_or_not_in_the_file_is_refused(tiny):
    with pytest.raises(errors.UsageError, match="no network resnet999") as refused:
        open_backbone(None, model="resnet999")
    assert "tiny" in refused.value.remedy
    path = FOLDER / "resnet.safetensors"
    assert open_backbone(path, model="resnet").name == "resnet"
    for name in ("vit", "other"):
        with pytest.raises(errors.DataError, match=f"and {name} was asked for"):
            open_backbone(path, model=name)


@pytest.mark.parametrize(
    ("name", "size", "resize", "mean", "interpolation"),
    [
        ("timm", 16, 18, published.IMAGENET[0], "bicubic"),
        ("hf_vit", 16, 18, published.HALF[0], "bicubic"),
        ("clip", 16, 16, published.CLIP[0], "bicubic"),
        ("clip_resnet", 32, 32, published.CLIP[0], "bicubic"),
        ("resnet", 224, 256, published.IMAGENET[0], "bilinear"),
    ],
)
def test_pictures_are_prepared_as_the_published_code_evaluates(name, size, resize, mean, interpolation):
    path = FOLDER / f"{name}.safetensors"
    preparation = read_preparation(path, contents.find_model(path))
    assert (preparation.size, preparation.resize) == (size, resize)
    assert preparation.mean == mean
    assert (preparation.interpolation, preparation.crop) == (interpolation, "centre")


def read_preparation(path: Path, kind: str):
    options = vars(plugins.read_config_class("model", kind)(weights=str(path)))
    file = safetensors_file.open_file(path)
    return published.make_preparation(kind, options, contents.count_places(file, kind, options), file)


def test_metadata_of_the_file_decide_the_preparation(tmp_path):
    texts = {"size": "24", "resize": "30", "mean": "0.1, 0.2, 0.3", "deviation": "1,2,3"}
    path = copy_with_metadata("timm", tmp_path / "a.safetensors", **texts)
    preparation = read_preparation(path, "vit")
    assert (preparation.size, preparation.resize) == (24, 30)
    assert (preparation.mean, preparation.deviation) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"size": "many"}, "many"),
        ({"size": "18"}, "no multiple"),
        ({"size": "1000000000"}, "pixels"),
        ({"size": "-4"}, "pixels"),
        ({"mean": "0.1,0.2"}, "mean"),
        ({"deviation": "1,0,1"}, "deviation"),
        ({"mean": "nan,0,0"}, "finite"),
    ],
)
def test_metadata_that_fit_nothing_are_refused(tmp_path, texts, words):
    path = copy_with_metadata("timm", tmp_path / "a.safetensors", **texts)
    with pytest.raises(errors.DataError, match=words):
        read_preparation(path, "vit")


def test_a_published_network_is_called_by_its_name():
    options = {"width": 384, "depth": 12, "patch": 14}
    assert published.find_name("vit", options) == "vit_s14"
    options = {"width": 64, "blocks": (3, 4, 6, 3), "bottleneck": True}
    assert published.find_name("resnet", options) == "resnet50"
    assert published.find_name("resnet", options | {"width": 63}) == "resnet of width 63 and depth 3-4-6-3"
