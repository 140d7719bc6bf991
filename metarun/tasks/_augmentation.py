"""Random changes to training pictures, drawn inside the compiled step: each picture has a key of its own.

Windows and flips move pixels and change none. A warp samples bilinearly, and colours are scaled; their results are
rounded to 256 levels, so that a picture stays what a file could hold. What is off costs nothing, and changes no bit.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from metarun.options import Augment

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow turns colours into grey


def augment(
    key: PRNGKeyArray, pictures: UInt8[Array, "*batch height width channel"], changes: Augment
) -> UInt8[Array, "*batch height width channel"]:
    """Change square pictures at random, each by itself."""
    warp_key, flip_key, colour_key = jax.random.split(key, 3)
    flat = pictures.reshape(-1, *pictures.shape[-3:])
    if changes.crop < 1 or changes.rotation > 0:
        flat = each(warp, warp_key, flat, changes.crop, changes.rotation)
    if changes.flip:
        flat = each(flip, flip_key, flat)
    if changes.colour > 0:
        flat = each(recolour, colour_key, flat, changes.colour)
    return flat.reshape(pictures.shape)


def each(change, key: PRNGKeyArray, pictures: UInt8[Array, "example height width channel"], *arguments):
    """Change every picture with a key of its own."""
    keys = jax.random.split(key, pictures.shape[0])
    return jax.vmap(lambda picture_key, picture: change(picture_key, picture, *arguments))(keys, pictures)


def flip(
    key: PRNGKeyArray, picture: UInt8[Array, "height width channel"]
) -> UInt8[Array, "height width channel"]:
    """Mirror a picture left to right in half of the cases."""
    return jnp.where(jax.random.bernoulli(key), picture[:, ::-1], picture)


def cut_window(
    key: PRNGKeyArray, picture: UInt8[Array, "height width channel"], size: int
) -> UInt8[Array, "{size} {size} channel"]:
    """Cut a square window of `size` pixels; all its places are equally likely."""
    limits = jnp.array(picture.shape[:2]) - size
    top, left = jax.random.randint(key, (2,), 0, limits + 1)
    return jax.lax.dynamic_slice(picture, (top, left, 0), (size, size, picture.shape[2]))


def warp(
    key: PRNGKeyArray, picture: UInt8[Array, "side side channel"], least: float, degrees: float
) -> UInt8[Array, "side side channel"]:
    """Turn a square window of a picture, and resize it to the picture's side.

    The window's side is uniform between `least` and 1 of the picture's, its place uniform where the window fits, and
    its angle uniform up to `degrees` to either side. Points beyond the edge have the colour of the nearest edge pixel.
    """
    side = picture.shape[0]
    share_key, place_key, angle_key = jax.random.split(key, 3)
    share = jax.random.uniform(share_key, (), minval=least, maxval=1.0)
    middle = (jax.random.uniform(place_key, (2,), minval=-0.5, maxval=0.5) * (1 - share) + 0.5) * side
    angle = jnp.deg2rad(jax.random.uniform(angle_key, (), minval=-degrees, maxval=degrees))
    ruler = (
        jnp.arange(side) + 0.5 - side / 2
    ) * share  # from the middle of the window, in pixels of the picture
    down = ruler[:, None] * jnp.cos(angle) - ruler[None, :] * jnp.sin(angle)
    right = ruler[:, None] * jnp.sin(angle) + ruler[None, :] * jnp.cos(angle)
    return to_bytes(sample_bilinear(picture, middle[0] + down - 0.5, middle[1] + right - 0.5))


def sample_bilinear(
    picture: UInt8[Array, "height width channel"],
    rows: Float[Array, "to_height to_width"],
    columns: Float[Array, "to_height to_width"],
) -> Float[Array, "to_height to_width channel"]:
    """Return the values between pixels; whole numbers are the middles of pixels."""
    height, width = picture.shape[:2]
    rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    top, left = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
    below, beside = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    upper = picture[top, left] * (1 - right) + picture[top, beside] * right
    lower = picture[below, left] * (1 - right) + picture[below, beside] * right
    return upper * (1 - down) + lower * down


def recolour(
    key: PRNGKeyArray, picture: UInt8[Array, "height width channel"], strength: float
) -> UInt8[Array, "height width channel"]:
    """Scale brightness, then contrast about the mean grey, then saturation about each pixel's grey.

    Each factor is uniform between 1 - strength and 1 + strength. A grey picture has no saturation.
    """
    brightness, contrast, saturation = jax.random.uniform(key, (3,), minval=1 - strength, maxval=1 + strength)
    values = picture.astype(jnp.float32) * brightness
    values = (values - to_grey(values).mean()) * contrast + to_grey(values).mean()
    if picture.shape[2] == 3:
        grey = to_grey(values)
        values = (values - grey) * saturation + grey
    return to_bytes(values)


def to_grey(values: Float[Array, "height width channel"]) -> Float[Array, "height width 1"]:
    """Return the grey value of each pixel."""
    if values.shape[2] != 3:
        return values.mean(axis=-1, keepdims=True)
    return (values * jnp.array(LUMA)[None, None]).sum(axis=-1, keepdims=True)


def to_bytes(values: Float[Array, "height width channel"]) -> UInt8[Array, "height width channel"]:
    """Round values to the 256 levels of a picture."""
    return jnp.round(jnp.clip(values, 0, 255)).astype(jnp.uint8)
