"""Augmentation: off it changes no bit, flips are exact, windows are windows, and colours keep their bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarun.options import Augment
from metarun.tasks import _augmentation

SIDE = 12
NOISE = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE, 3), dtype=np.uint8)


def augment(pictures, key=0, **changes):
    run = jax.jit(lambda key, pictures: _augmentation.augment(key, pictures, Augment(**changes)))
    return np.asarray(run(jax.random.key(key), pictures))


def test_nothing_is_changed_when_everything_is_off():
    np.testing.assert_array_equal(augment(NOISE), NOISE)


def test_half_of_the_pictures_are_mirrored_exactly():
    pictures = np.broadcast_to(NOISE[0, 0], (400, 1, SIDE, SIDE, 3))
    flipped = augment(pictures, flip=True)[:, 0]
    mirrored = (flipped == NOISE[0, 0][:, ::-1]).all(axis=(1, 2, 3))
    same = (flipped == NOISE[0, 0]).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert abs(mirrored.sum() - 200) < 5 * 10


def test_the_same_key_gives_the_same_pictures_and_each_picture_has_its_own_change():
    pictures = np.broadcast_to(NOISE[0, 0], (1, 8, SIDE, SIDE, 3))
    options = {"flip": True, "crop": 0.5, "colour": 0.4, "rotation": 20.0}
    first = augment(pictures, **options)
    np.testing.assert_array_equal(augment(pictures, **options), first)
    assert (augment(pictures, key=1, **options) != first).any()
    assert len({picture.tobytes() for picture in first[0]}) == 8


def test_the_mean_of_many_windows_is_the_picture_s_own_at_its_middle_and_within_a_ramp_s_bounds():
    ramp = np.broadcast_to((np.arange(SIDE) * 20).astype(np.uint8)[None, :, None], (SIDE, SIDE, 1))
    cut = augment(np.broadcast_to(ramp, (2000, 1, SIDE, SIDE, 1)), crop=0.5)[:, 0].astype(float)
    assert abs(cut.mean() - ramp.mean()) < 2  # windows are drawn to both sides alike
    widths = (cut[:, 0, -1, 0] - cut[:, 0, 0, 0]) / (20 * (SIDE - 1))
    assert 0.45 < widths.min() < 0.55 and 0.95 < widths.max() <= 1
    assert abs(widths.mean() - 0.75) < 0.02  # sides are uniform between a half and the whole
    assert (np.diff(cut[:, 0, :, 0], axis=1) >= 0).all()


def test_a_quarter_turn_is_a_rotation_and_a_whole_window_is_the_picture():
    picture = jnp.asarray(NOISE[0, 0])
    whole = jax.jit(_augmentation.warp, static_argnums=(2, 3))(jax.random.key(0), picture, 1.0, 0.0)
    np.testing.assert_array_equal(whole, NOISE[0, 0])
    down, right = jnp.meshgrid(jnp.arange(SIDE * 1.0), jnp.arange(SIDE * 1.0), indexing="ij")
    turned = _augmentation.sample_bilinear(picture, right, SIDE - 1 - down)
    np.testing.assert_array_equal(turned, np.rot90(NOISE[0, 0]))


def test_windows_are_cut_at_every_place_and_are_exact():
    numbered = jnp.arange(25, dtype=jnp.uint8).reshape(5, 5, 1)
    keys = jax.random.split(jax.random.key(0), 500)
    cut = jax.jit(jax.vmap(lambda key: _augmentation.cut_window(key, numbered, 3)))(keys)
    corners = np.asarray(cut)[:, 0, 0, 0]
    assert set(corners.tolist()) == {row * 5 + column for row in range(3) for column in range(3)}
    offsets = np.arange(3)[:, None] * 5 + np.arange(3)
    np.testing.assert_array_equal(np.asarray(cut)[..., 0], corners[:, None, None] + offsets)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_is_scaled_within_its_bounds_and_grey_stays_grey(channels):
    pictures = np.full((300, 1, 4, 4, channels), 100, np.uint8)
    changed = augment(pictures, colour=0.3)[:, 0]
    assert (changed == changed[:, :1, :1, :1]).all()  # one grey value stays one grey value
    assert 70 <= changed.min() < 75 and 125 < changed.max() <= 130
    assert abs(changed.mean() - 100) < 4
