"""What a preparation makes of a picture: the window, the side, the scale, and a digest that tells two apart."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from metarun import errors
from metarun.data import picture_files, preparation
from metarun.data.preparation import Preparation


@pytest.fixture
def noise(tmp_path):
    """A picture of noise, 30 high and 45 wide."""
    values = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    return tmp_path / "a.png", values


def test_a_centre_crop_of_the_picture_s_own_height_is_its_middle_pixels(noise):
    path, values = noise
    # 7.5 pixels on the left are rounded to 8, as torchvision's CenterCrop rounds them
    np.testing.assert_array_equal(Preparation(30).decode(path), values[:, 8:38])
    np.testing.assert_array_equal(Preparation(10, resize=30).decode(path), values[10:20, 18:28])


def test_the_shorter_side_is_resized_and_shapes_stay_what_they_are(noise):
    path, values = noise
    resized = Image.fromarray(values).resize((24, 16), Image.Resampling.BICUBIC)
    prepared = Preparation(12, resize=16, interpolation="bicubic").decode(path)
    np.testing.assert_array_equal(prepared, np.asarray(resized)[2:14, 6:18])


def test_stretch_is_what_read_picture_does_and_random_windows_come_from_a_larger_square(noise):
    path = noise[0]
    np.testing.assert_array_equal(
        Preparation(8, crop="stretch").decode(path), picture_files.read_picture(path, 8, 3)
    )
    random = Preparation(14, crop="random")
    whole = random.decode(path, whole=True)
    assert whole.shape == (16, 16, 3)
    np.testing.assert_array_equal(random.decode(path), whole[1:15, 1:15])
    assert Preparation(8, resize=10, crop="stretch").decode(path, whole=True).shape == (10, 10, 3)


def test_mean_and_deviation_scale_each_channel_and_nothing_else(noise):
    path, values = noise
    plain = Preparation(30).read(path)
    np.testing.assert_array_equal(plain, values[:, 8:38].astype(np.float32) / 255)
    scaled = Preparation(30, mean=(0.1, 0.2, 0.3), deviation=(0.5, 1.0, 2.0)).read(path)
    expected = (plain.astype(np.float64) - [0.1, 0.2, 0.3]) / [0.5, 1.0, 2.0]
    np.testing.assert_allclose(scaled, expected, atol=1e-6)
    assert scaled.dtype == np.float32


def test_a_long_strip_is_cut_before_it_is_resized_so_that_its_memory_is_bounded(tmp_path, monkeypatch):
    Image.new("L", (20_000, 2), 90).save(tmp_path / "strip.png")
    sizes, resample = [], preparation.resample
    monkeypatch.setattr(
        preparation,
        "resample",
        lambda picture, size, how: (sizes.append(size), resample(picture, size, how))[1],
    )
    assert (Preparation(32, channels=1).decode(tmp_path / "strip.png") == 90).all()
    assert sizes == [(32, 128)]


def test_the_digest_names_what_decides_the_values(noise):
    usual = Preparation(28)
    assert usual.digest() == Preparation(28, resize=28).digest()
    changes = [
        *({"size": 27}, {"resize": 32}, {"crop": "stretch"}, {"channels": 1}, {"interpolation": "bicubic"}),
        *({"mean": (0.0, 0.0, 0.1)}, {"deviation": (1.0, 1.0, 2.0)}),
    ]
    digests = {dataclasses.replace(usual, **change).digest() for change in changes}
    assert len(digests) == len(changes) and usual.digest() not in digests
    assert len(usual.digest()) == 64


@pytest.mark.parametrize(
    "options", [{"resize": 27}, {"mean": (0.5,)}, {"deviation": (1.0, 0.0, 1.0)}, {"deviation": (1.0, 1.0)}]
)
def test_what_does_not_go_together_is_refused(options):
    with pytest.raises(ValueError, match=r"resize|mean|deviation"):
        Preparation(28, **options)


def test_a_heic_picture_is_read_like_any_other_or_refused_by_name(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="pip install 'metarun[heic]'")
    values = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    heif.from_pillow(Image.fromarray(values)).save(tmp_path / "IMG_1.HEIC", quality=100)
    assert picture_files.is_picture(tmp_path / "IMG_1.HEIC")
    np.testing.assert_allclose(Preparation(16).decode(tmp_path / "IMG_1.HEIC"), values[:, 4:20], atol=4)
    disguised = (tmp_path / "IMG_1.HEIC").rename(tmp_path / "b.jpg")
    monkeypatch.setattr(picture_files, "import_heif", lambda: None)
    with pytest.raises(errors.DataError, match=r"b\.jpg is a HEIC picture") as caught:
        Preparation(16).decode(disguised)
    assert "metarun[heic]" in caught.value.remedy
