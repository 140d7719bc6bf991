"""What a run notes of its training pictures, and which pictures it then takes to be unlike them."""

import numpy as np
import pytest

from metarun.runs import picture_range
from metarun.runs.picture_range import PictureRange

DRAWN = np.random.default_rng(0).random((6, 5, 8, 8)) < np.linspace(0.1, 0.3, 30).reshape(6, 5, 1, 1)
IMAGES = (255 * DRAWN).astype(np.uint8)  # ink is 255


def test_the_range_is_that_of_the_means_and_deviations_of_the_pictures():
    known = picture_range.measure_range({"images": IMAGES, "character": np.arange(6)})
    assert known is not None
    pictures = IMAGES.reshape(30, 64) / 255
    for ends, values in zip(known[:2], (pictures.mean(axis=1), pictures.std(axis=1)), strict=True):
        np.testing.assert_allclose(ends, (values.min(), values.max()), rtol=1e-5)


@pytest.mark.parametrize("data", [(), {"rows": IMAGES}, {"images": IMAGES / 255}, {"images": IMAGES[0, 0]}])
def test_what_has_no_pictures_has_no_range(data):
    assert picture_range.measure_range(data) is None


def test_colours_are_a_part_of_a_picture():
    colours = picture_range.measure_range({"images": np.stack([IMAGES[:, 0]] * 3, axis=-1)})
    assert colours == picture_range.measure_range({"images": IMAGES[:, 0]})


def test_pictures_of_the_training_are_like_it_and_turned_over_or_empty_ones_are_not():
    known = picture_range.measure_range({"images": IMAGES})
    drawings = IMAGES.reshape(30, 8, 8, 1).astype(np.float32) / 255
    assert not picture_range.find_unlike(drawings, known).any()
    assert picture_range.find_unlike(1 - drawings, known).all()
    assert picture_range.find_unlike(np.zeros((1, 8, 8, 1), np.float32), known).tolist() == [True]


def test_a_run_keeps_the_range_and_an_old_run_has_none(tmp_path):
    assert picture_range.read(tmp_path) is None
    known = PictureRange((0.1, 0.25), (0.3, 0.4))
    picture_range.write(tmp_path, known)
    assert picture_range.read(tmp_path) == known
    (tmp_path / picture_range.FILE).write_text("[]")
    assert picture_range.read(tmp_path) is None
