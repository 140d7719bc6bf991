"""Convolution as one matrix product, so that `vmap` over per-task kernels is one batched product.

Under `vmap`, XLA turns `lax.conv` with a kernel per task into a grouped convolution, which is tens of times
slower on a CPU and several times on a GPU. Here the shifted slices of the input are laid side by side
(im2col) and multiplied with the flattened kernel; `vmap`, `grad` and `grad` of `grad` of that are again
matrix products.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def same_padding(size: int, window: int, stride: int) -> tuple[int, int, int]:
    """Output size, and the padding before and after, of TensorFlow's "SAME" rule."""
    output = -(-size // stride)
    total = max((output - 1) * stride + window - size, 0)
    return output, total // 2, total - total // 2


def convolve(
    inputs: Float[Array, "example height width channel"],
    kernel: Float[Array, "window_height window_width channel out"],
    stride: int = 1,
) -> Float[Array, "example out_height out_width out"]:
    """The values of `lax.conv_general_dilated(..., padding="SAME")` in NHWC, HWIO order."""
    window_height, window_width, channels, out = kernel.shape
    height, top, bottom = same_padding(inputs.shape[1], window_height, stride)
    width, left, right = same_padding(inputs.shape[2], window_width, stride)
    padded = jnp.pad(inputs, ((0, 0), (top, bottom), (left, right), (0, 0)))

    def shifted(row: int, column: int):
        rows = slice(row, row + (height - 1) * stride + 1, stride)
        columns = slice(column, column + (width - 1) * stride + 1, stride)
        return padded[:, rows, columns, :]

    patches = jnp.concatenate(
        [shifted(row, column) for row in range(window_height) for column in range(window_width)], axis=-1
    )
    matrix = kernel.reshape(window_height * window_width * channels, out)
    return (patches.reshape(-1, matrix.shape[0]) @ matrix).reshape(-1, height, width, out)


def max_pool(inputs: Float[Array, "example height width channel"]) -> Float[Array, "example _ _ channel"]:
    """The largest of each 2×2 block; an odd last row or column is dropped.

    By comparisons of two, because the derivative of `reduce_window` has no fast second derivative, and that of `max`
    asks which input equals the result: where a compiler computes the inputs twice, with other rounding, none does, and
    the derivative is 0/0. Of equal inputs the first takes the derivative.
    """
    examples, height, width, channels = inputs.shape
    even = inputs[:, : height // 2 * 2, : width // 2 * 2, :]
    blocks = even.reshape(examples, height // 2, 2, width // 2, 2, channels)
    rows = larger(blocks[:, :, 0], blocks[:, :, 1])
    return larger(rows[:, :, :, 0], rows[:, :, :, 1])


def larger(left: Float[Array, "*shape"], right: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.where((right > left) | jnp.isnan(right), right, left)
