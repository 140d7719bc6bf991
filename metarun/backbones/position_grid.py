"""Vectors of positions on a square grid, brought to another grid as the published codes do.

All of them interpolate by bicubic convolution (Keys 1981), which is separable: one matrix for the rows, one for the
columns. They differ in the kernel's parameter, in whether it is widened where the grid shrinks, and in how places of
the new grid lie in the old one.
"""

from typing import Literal

import numpy as np

# bicubic: torch's interpolate to a size. antialiased: the same with antialias (timm, open_clip, DINOv2 with
# registers). offset: to a scale that is 0.1 of a place too large (DINO, DINOv2). corners: with align_corners
# (torchvision).
Rule = Literal["bicubic", "antialiased", "offset", "corners"]

OFFSET = 0.1  # places of the grid
SHARPNESS, SHARPNESS_ANTIALIASED = -0.75, -0.5  # Keys's parameter a


def resize(table: np.ndarray, grid: tuple[int, int], rule: Rule) -> np.ndarray:
    """Return vectors [place, feature] of a square grid, row by row, at another grid of (rows, columns)."""
    side = round(len(table) ** 0.5)
    if grid == (side, side):
        return table  # the published codes do not interpolate then
    rows, columns = (make_matrix(side, count, rule) for count in grid)
    square = table.reshape(side, side, -1).astype(np.float64)
    resized = np.einsum("rR,cC,RCf->rcf", rows, columns, square, optimize=True)
    return resized.reshape(grid[0] * grid[1], -1).astype(np.float32)


def make_matrix(old: int, new: int, rule: Rule) -> np.ndarray:
    """Return the matrix [new, old] that interpolates a line of places."""
    places = np.arange(new, dtype=np.float64)
    if rule == "antialiased":
        return _make_antialiased(old, new)
    if rule == "corners":
        centres = places * (old - 1) / max(new - 1, 1)
    else:
        scale = old / (new + OFFSET) if rule == "offset" else old / new
        centres = (places + 0.5) * scale - 0.5
    matrix = np.zeros((new, old))
    first = np.floor(centres).astype(int)
    for shift in range(-1, 3):  # the four places around the centre; those outside stand for the edge
        weights = _cubic(centres - (first + shift), SHARPNESS)
        np.add.at(matrix, (np.arange(new), np.clip(first + shift, 0, old - 1)), weights)
    return matrix


def _make_antialiased(old: int, new: int) -> np.ndarray:
    """Widen the kernel where the line shrinks; weights of places outside are left out, and the rest sums to one."""
    scale = old / new
    width = max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    distances = (np.arange(old)[None] + 0.5 - centres[:, None]) / width
    weights = _cubic(distances, SHARPNESS_ANTIALIASED)
    first = np.maximum((centres - 2 * width + 0.5).astype(int), 0)
    last = np.minimum((centres + 2 * width + 0.5).astype(int), old)
    inside = (np.arange(old)[None] >= first[:, None]) & (np.arange(old)[None] < last[:, None])
    weights = np.where(inside, weights, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _cubic(distance: np.ndarray, sharpness: float) -> np.ndarray:
    """Return the weight of Keys's kernel at a distance."""
    x, a = np.abs(distance), sharpness
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
