"""Convolution as one matrix product, so that `vmap` over a kernel for each task is one batched product.

Under `vmap`, XLA turns `lax.conv` with a kernel for each task into a grouped convolution, which is tens of times slower
on a CPU and several times slower on a GPU. Here the shifted slices of the input are put side by side (im2col) and
multiplied with the flattened kernel. `vmap`, `grad` and `grad` of `grad` of that are matrix products again.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Form = Literal["auto", "products", "native"]

# What `auto` means on each platform: the faster form of second-order MAML on Omniglot, as far as it was measured.
# A GPU and a TPU have the form of the CPU until the table of scripts/gpu.sh says otherwise.
FASTEST: dict[str, Form] = {"cpu": "products", "gpu": "products", "tpu": "products"}


def pad_same(size: int, window: int, stride: int) -> tuple[int, int, int]:
    """Return the output size, and the padding before and after, by TensorFlow's "SAME" rule."""
    output = -(-size // stride)
    total = max((output - 1) * stride + window - size, 0)
    return output, total // 2, total - total // 2


def convolve(
    inputs: Float[Array, "example height width channel"],
    kernel: Float[Array, "window_height window_width channel out"],
    stride: int = 1,
    form: Form = "auto",
    padding: int | None = None,
) -> Float[Array, "example out_height out_width out"]:
    """Return the values of `lax.conv_general_dilated(..., padding="SAME")` in NHWC, HWIO order.

    Args:
      form: matrix products, XLA's own convolution, or the faster of the two on this platform.
      padding: zeros around the input on each side, as PyTorch counts them; None: "SAME".
    """
    if form == "auto":
        form = FASTEST.get(jax.default_backend(), "products")
    return (convolve_natively if form == "native" else convolve_by_products)(inputs, kernel, stride, padding)


def convolve_natively(
    inputs: Float[Array, "example height width channel"],
    kernel: Float[Array, "window_height window_width channel out"],
    stride: int = 1,
    padding: int | None = None,
) -> Float[Array, "example out_height out_width out"]:
    """Convolve by XLA's own operation: on a GPU by cuDNN, and grouped if each task has its kernel.

    No algorithm can be named for it as for products. So in bfloat16 what it takes is rounded, and what it gives, too.
    """
    dtype = inputs.dtype
    if jax.config.jax_default_matmul_precision == "BF16_BF16_F32":  # type: ignore[attr-defined]
        inputs, kernel = inputs.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    axes = ("NHWC", "HWIO", "NHWC")
    around = "SAME" if padding is None else [(padding, padding)] * 2
    outputs = jax.lax.conv_general_dilated(inputs, kernel, (stride, stride), around, dimension_numbers=axes)
    return outputs.astype(dtype)


def convolve_by_products(
    inputs: Float[Array, "example height width channel"],
    kernel: Float[Array, "window_height window_width channel out"],
    stride: int = 1,
    padding: int | None = None,
) -> Float[Array, "example out_height out_width out"]:
    """Convolve by one matrix product of the patches with the flattened kernel."""
    around = () if padding is None else (padding,)
    patches = make_patches(inputs, kernel.shape[:2], stride, *around)
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return (patches.reshape(-1, matrix.shape[0]) @ matrix).reshape(*patches.shape[:-1], -1)


def make_patches(
    inputs: Float[Array, "example height width channel"],
    window: tuple[int, ...],
    stride: int,
    padding: int | None = None,
) -> Float[Array, "example out_height out_width patch"]:
    """Return what the window sees at each of its places, pixel after pixel of the window.

    The input is sorted into planes by the remainders of row and column, so that a pixel of the window is a plain slice
    of one plane. So the derivative adds the slices plane by plane and interleaves the sums. Slices with a stride have
    the same values, but their derivative adds as many arrays of the size of the input, most of whose entries are zero.
    """
    sides = zip(inputs.shape[1:3], window, strict=True)
    if padding is None:
        (height, top, _), (width, left, _) = (pad_same(size, side, stride) for size, side in sides)
    else:
        height, width = ((size + 2 * padding - side) // stride + 1 for size, side in sides)
        top = left = padding
    planes = split_planes(
        inputs, stride, (height + (window[0] - 1) // stride, top), (width + (window[1] - 1) // stride, left)
    )

    def shift(row: int, column: int):
        (first_row, row_plane), (first_column, column_plane) = divmod(row, stride), divmod(column, stride)
        plane = planes[row_plane][column_plane]
        return plane[:, first_row : first_row + height, first_column : first_column + width]

    return jnp.concatenate(
        [shift(row, column) for row in range(window[0]) for column in range(window[1])], axis=-1
    )


def split_planes(
    inputs: Float[Array, "example height width channel"],
    stride: int,
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> list[list[Float[Array, "example row column channel"]]]:
    """Return the padded input by the remainders of row and column after division by the stride.

    Args:
      rows: how many rows a plane has, and the padding before the first row of the input.
      columns: the same of the columns.
    """
    examples, height, width, channels = inputs.shape
    sides = ((height, *rows), (width, *columns))
    padding = [(before, count * stride - size - before, 0) for size, count, before in sides]
    padded = jax.lax.pad(inputs, jnp.zeros((), inputs.dtype), [(0, 0, 0), *padding, (0, 0, 0)])
    blocks = padded.reshape(examples, rows[0], stride, columns[0], stride, channels)
    # The derivative of a split is a concatenation; that of an index would be a sum of arrays with zeros.
    return [
        [plane.squeeze((2, 4)) for plane in jax.lax.split(band, [1] * stride, axis=4)]
        for band in jax.lax.split(blocks, [1] * stride, axis=2)
    ]


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
