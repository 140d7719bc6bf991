"""From the names in a file of weights to a parameter tree: which array comes from where, and how it is turned.

A layout gives a `Piece` for each array of the network. What is missing in the file, is too much, or has another shape
is found before anything is read.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from metarun.backbones.safetensors_file import WeightFile
from metarun.errors import DataError

Shape = tuple[int, ...]
Path = tuple[str, ...]  # the keys on the way to an array of the parameter tree

NAMED = 4  # arrays of each kind that a message names


class Piece(NamedTuple):
    """Where one array of the network lies in a file."""

    # Names in the file with their shapes, in the order in which `convert` takes them.
    sources: Mapping[str, Shape]
    convert: Callable[..., np.ndarray]  # arrays of the file -> the array of the network


def keep(array: np.ndarray) -> np.ndarray:
    """Return an array as it is."""
    return array


def take_dense(matrix: np.ndarray) -> np.ndarray:
    """Turn PyTorch's [out, in] into [in, out]."""
    return matrix.T


def take_convolution(kernel: np.ndarray) -> np.ndarray:
    """Turn PyTorch's [out, in, height, width] into [height, width, in, out]."""
    return kernel.transpose(2, 3, 1, 0)


def check(file: WeightFile, layout: str, pieces: Mapping[Path, Piece], ignored: str) -> None:
    """Refuse a file that does not hold the arrays of the network, all of them and no others.

    Args:
      layout: its name, for the message.
      ignored: a pattern of names that may stand in the file beside them.

    Raises:
      DataError: arrays are missing, too much, or of another shape.
    """
    expected = {name: shape for piece in pieces.values() for name, shape in piece.sources.items()}
    shapes = file.shapes
    missing = [name for name in expected if name not in shapes]
    others = [name for name in shapes if name not in expected and not re.fullmatch(ignored, name)]
    turned = [
        f"{name} is {list(shapes[name])} and not {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    kinds = {"missing": missing, "too much": others, "of another shape": turned}
    faults = [f"{kind}: {list_first(names)}" for kind, names in kinds.items() if names]
    if faults:
        what = f"the arrays are not those of the layout {layout}: {'; '.join(faults)}"
        raise DataError(what, str(file.path), "take a file of a network that docs/backbones.md lists")


def list_first(names: list[str]) -> str:
    """Return the first names, and how many there are beside them."""
    rest = len(names) - NAMED
    return ", ".join(name[:100] for name in names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def read_tree(
    file: WeightFile, pieces: Mapping[Path, Piece], place: Callable[[np.ndarray], Any] = keep
) -> dict[str, Any]:
    """Read the parameter tree, float32, one array after the other.

    Args:
      place: what becomes of each array, such as a transfer to a device, before the next one is read.

    Raises:
      DataError: as of `WeightFile.read`, or an array that is computed from the file is not finite.
    """
    tree: dict[str, Any] = {}
    for path, piece in pieces.items():
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        with np.errstate(all="ignore"):
            array = piece.convert(*(file.read(name) for name in piece.sources))
        if len(piece.sources) > 1 and not np.isfinite(array).all():  # such as by a negative variance
            what = f"{list_first(list(piece.sources))} give numbers that are not finite"
            raise DataError(what, str(file.path), "take another copy of the file")
        branch[path[-1]] = place(np.ascontiguousarray(array, np.float32))
    return tree
