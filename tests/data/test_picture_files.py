"""Reading one picture file: orientation, transparency, depth, modes, and what is refused."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metarun import errors
from metarun.data import picture_files


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    """Save a picture, and return its path."""
    image.save(path, **options)
    return path


def test_a_picture_is_turned_as_its_orientation_says(tmp_path):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    exif = Image.Exif()
    exif[274] = 6  # shown after a quarter turn clockwise
    path = save(tmp_path / "a.png", Image.fromarray(values), exif=exif)
    np.testing.assert_array_equal(picture_files.read_picture(path, (4, 3), 1)[..., 0], np.rot90(values, -1))


def test_transparent_pixels_are_white(tmp_path):
    values = np.zeros((2, 2, 4), np.uint8)
    values[0, :, 3] = 255
    path = save(tmp_path / "a.png", Image.fromarray(values))
    assert picture_files.read_picture(path, 2, 1)[..., 0].tolist() == [[0, 0], [255, 255]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    path = save(tmp_path / "b.gif", palette, transparency=0)
    assert picture_files.read_picture(path, (1, 2), 3).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_sixteen_bits_keep_their_upper_half(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(np.array([[0, 257, 65535]], np.uint16)))
    assert picture_files.read_picture(path, (1, 3), 1).tolist() == [[[0], [1], [255]]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB"])
def test_white_is_white_in_every_mode_and_in_grey_and_colour(tmp_path, mode):
    path = save(tmp_path / "a.tif", Image.new("RGB", (5, 4), "white").convert(mode))
    white = 254 if mode == "LAB" else 255  # LAB rounds on its way to colours
    for channels in (1, 3):
        picture = picture_files.read_picture(path, 8, channels)
        assert picture.shape == (8, 8, channels) and picture.dtype == np.uint8 and (picture >= white).all()


def test_of_an_animation_it_is_the_first_frame(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (40, 200)]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (picture_files.read_picture(path, 4, 1) == 40).all()


def test_a_picture_that_claims_too_many_pixels_is_refused_before_they_are_there(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", Image.new("1", (1000, 1000)))
    monkeypatch.setattr(picture_files, "MOST_PIXELS", 999_999)
    monkeypatch.setattr(picture_files, "_flatten", None)  # what would decode it
    with pytest.raises(errors.DataError, match=r"a\.png has 1000 × 1000 pixels"):
        picture_files.read_picture(path, 8, 1)


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "pipe", "floats", "long"])
def test_a_file_that_is_no_good_picture_is_a_data_error_with_its_name(tmp_path, monkeypatch, damage):
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    match damage:
        case "empty":
            path.touch()
        case "cut":
            whole = save(path, Image.fromarray(noise)).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        case "other":
            path.write_text("%!PS-Adobe-3.0 EPSF-3.0")
        case "pipe":
            os.mkfifo(path)
        case "floats":
            Image.fromarray(noise.astype(np.float32)).save(path, format="TIFF")
        case "long":
            save(path, Image.fromarray(noise))
            monkeypatch.setattr(picture_files, "MOST_BYTES", 100)
    with pytest.raises(errors.DataError) as caught:
        picture_files.read_picture(path, 8, 1)
    assert caught.value.where == str(path) and caught.value.exit_code == 4


def test_a_picture_with_a_side_that_is_too_long_is_refused_before_it_is_decoded(tmp_path):
    path = save(tmp_path / "a.png", Image.new("L", (picture_files.MOST_SIDE + 1, 1)))
    content = bytearray(path.read_bytes())
    content[60:] = b""  # no pixel can be decoded from what is left
    path.write_bytes(content)
    with pytest.raises(errors.DataError, match="32769 × 1 pixels"):
        picture_files.read_picture(path, 28, 1)
    longest = save(tmp_path / "b.png", Image.new("L", (picture_files.MOST_SIDE, 1), 255))
    assert (picture_files.read_picture(longest, 4, 1) == 255).all()
