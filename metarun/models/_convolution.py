"""Convolution as one matrix product, so that `vmap` over a kernel for each task is one batched product.

Under `vmap`, XLA turns `lax.conv` with a kernel for each task into a grouped convolution, which is tens of times slower
on a CPU and several times slower on a GPU. Here the shifted slices of the input are put side by side (im2col) and
multiplied with the flattened kernel. `vmap`, `grad` and `grad` of `grad` of that are matrix products again.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def pad_same(size: int, window: int, stride: int) -> tuple[int, int, int]:
    """Return the output size, and the padding before and after, by TensorFlow's "SAME" rule."""
    output = -(-size // stride)
    total = max((output - 1) * stride + window - size, 0)
    return output, total // 2, total - total // 2


def convolve(
    inputs: Float[Array, "example height width channel"],
    kernel: Float[Array, "window_height window_width channel out"],
    stride: int = 1,
) -> Float[Array, "example out_height out_width out"]:
    """Return the values of `lax.conv_general_dilated(..., padding="SAME")` in NHWC, HWIO order."""
    window_height, window_width, channels, out = kernel.shape
    height, top, bottom = pad_same(inputs.shape[1], window_height, stride)
    width, left, right = pad_same(inputs.shape[2], window_width, stride)
    padded = jnp.pad(inputs, ((0, 0), (top, bottom), (left, right), (0, 0)))

    def shift(row: int, column: int):
        rows = slice(row, row + (height - 1) * stride + 1, stride)
        columns = slice(column, column + (width - 1) * stride + 1, stride)
        return padded[:, rows, columns, :]

    patches = jnp.concatenate(
        [shift(row, column) for row in range(window_height) for column in range(window_width)], axis=-1
    )
    matrix = kernel.reshape(window_height * window_width * channels, out)
    return (patches.reshape(-1, matrix.shape[0]) @ matrix).reshape(-1, height, width, out)


def max_pool(inputs: Float[Array, "example height width channel"]) -> Float[Array, "example _ _ channel"]:
    """Return the largest value of each 2×2 block. An odd last row or column is dropped.

    It compares two values at a time. `reduce_window` has no fast second derivative. The derivative of `max` looks for
    the input that equals the result; if a compiler computes the inputs twice, with different rounding, no input does,
    and the derivative is 0/0. If two inputs are equal, the first takes the derivative.
    """
    examples, height, width, channels = inputs.shape
    even = inputs[:, : height // 2 * 2, : width // 2 * 2, :]
    blocks = even.reshape(examples, height // 2, 2, width // 2, 2, channels)
    rows = choose_larger(blocks[:, :, 0], blocks[:, :, 1])
    return choose_larger(rows[:, :, :, 0], rows[:, :, :, 1])


def choose_larger(left: Float[Array, "*shape"], right: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the larger of two values, or NaN if one of them is NaN."""
    return jnp.where((right > left) | jnp.isnan(right), right, left)
