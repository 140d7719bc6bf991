"""How bright and how rich in contrast the training pictures of a run are, so that others can be told from them.

A run keeps this in `inputs.json`, because the data of a run may be elsewhere when somebody predicts with it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from metarun.runs import files

FILE = "inputs.json"
LOOKED_AT = 2000  # training pictures, spread evenly over all of them
MARGIN = 0.25  # of the range, beyond which a picture is unlike those of the training


class PictureRange(NamedTuple):
    """The lowest and the highest values of the training pictures, for inputs in [0, 1]."""

    brightness: tuple[float, float]  # mean of a picture
    contrast: tuple[float, float]  # standard deviation within a picture


def measure_range(data: Any) -> PictureRange | None:
    """Return the range of the pictures of a split: its `images`, uint8 [..., height, width] or with channels.

    None: the split has no such array.
    """
    images = data.get("images") if isinstance(data, Mapping) else None
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim < 3:
        return None
    channels = images.ndim > 3 and images.shape[-1] in (1, 3)
    pictures = images.reshape(-1, *images.shape[-3 if channels else -2 :])
    chosen = np.linspace(0, len(pictures) - 1, min(LOOKED_AT, len(pictures))).astype(int)
    brightness, contrast = _describe(pictures[chosen].astype(np.float32) / 255)
    return PictureRange(_find_ends(brightness), _find_ends(contrast))


def find_unlike(
    pictures: Float[np.ndarray, "example height width channel"], known: PictureRange
) -> np.ndarray:
    """Return which pictures are unlike those of the training, [example]."""
    brightness, contrast = _describe(pictures)
    return _lie_outside(brightness, known.brightness) | _lie_outside(contrast, known.contrast)


def write(run: Path, known: PictureRange) -> None:
    """Write the range into a run directory."""
    files.write_json(run / FILE, known._asdict())


def read(run: Path) -> PictureRange | None:
    """Return the range that a run keeps; None: it keeps none, as a run of an older version."""
    try:
        content = json.loads((run / FILE).read_text("utf-8"))
        return PictureRange(
            *((float(low), float(high)) for low, high in map(content.get, PictureRange._fields))
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _describe(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = pictures.reshape(len(pictures), -1)
    return flat.mean(axis=1), flat.std(axis=1)


def _find_ends(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _lie_outside(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    margin = MARGIN * (ends[1] - ends[0])
    return (values < ends[0] - margin) | (values > ends[1] + margin)
