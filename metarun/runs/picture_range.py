"""How bright and how rich in contrast the training pictures of a run are, and whether their ground is dark or light.

So others can be told from them. The ground is what a picture shows at its border: the paper of a drawing.

A run keeps this in `inputs.json`, because the data of a run may be elsewhere when somebody predicts with it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from metarun.runs import files, regular_files

FILE = "inputs.json"
LOOKED_AT = 2000  # training pictures, spread evenly over all of them
MARGIN = 0.25  # of the range, beyond which a picture is unlike those of the training
BORDER = 14  # a border is as wide as this part of the shorter side, and a pixel at least
LEAST_STEP = 0.02  # between the border and the mean of a picture, where one of the two is the ground
AGREEING = 0.8  # of the pictures must have the same ground

Ground = Literal["dark", "light"]


class PictureRange(NamedTuple):
    """The lowest and the highest values of the training pictures, for inputs in [0, 1]."""

    brightness: tuple[float, float]  # mean of a picture
    contrast: tuple[float, float]  # standard deviation within a picture
    ground: Ground | None = None  # of the pictures; None: it differs, as in photographs, or is not known


def measure_range(data: Any) -> PictureRange | None:
    """Return the range of the pictures of a split: its `images`, uint8 [..., height, width] or with channels.

    None: the split has no such array.
    """
    images = data.get("images") if isinstance(data, Mapping) else None
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim < 3:
        return None
    channels = images.ndim > 3 and images.shape[-1] in (1, 3)
    pictures = images.reshape(-1, *images.shape[-3 if channels else -2 :])
    rows = data.get("rows", np.arange(len(pictures)))  # of a table that holds all splits
    chosen = rows[np.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).astype(int)]
    looked_at = pictures[chosen].astype(np.float32) / 255
    brightness, contrast = _describe(looked_at)
    ground = find_ground(looked_at if channels else looked_at[..., None])
    return PictureRange(_find_ends(brightness), _find_ends(contrast), ground)


def find_ground(pictures: Float[np.ndarray, "example height width channel"]) -> Ground | None:
    """Return whether pictures in [0, 1] lie on dark or on light ground; None: they do not agree.

    The ground of a picture is dark if the median of its border is below its mean: what is shown is brighter then. It is
    light if the median is above. The median does not mind strokes that run over the border.
    """
    if not len(pictures):
        return None
    height, width = pictures.shape[1:3]
    edge = max(1, min(height, width) // BORDER)
    is_border = np.ones((height, width), bool)
    is_border[edge : height - edge, edge : width - edge] = False
    steps = np.median(pictures[:, is_border].mean(axis=-1), axis=1) - pictures.mean(axis=(1, 2, 3))
    if (steps < -LEAST_STEP).mean() >= AGREEING:
        return "dark"
    return "light" if (steps > LEAST_STEP).mean() >= AGREEING else None


def find_unlike(
    pictures: Float[np.ndarray, "example height width channel"], known: PictureRange
) -> np.ndarray:
    """Return which pictures are unlike those of the training, [example]."""
    brightness, contrast = _describe(pictures)
    return _lie_outside(brightness, known.brightness) | _lie_outside(contrast, known.contrast)


def write(run: Path, known: PictureRange) -> None:
    """Write the range into a run directory."""
    files.write_sealed(run / FILE, known._asdict())


def read(run: Path) -> PictureRange | None:
    """Return the range that a run keeps; None: it keeps none, as a run of an older version."""
    try:
        content = regular_files.read_sealed(run / FILE)
        (darkest, brightest), (flattest, richest) = content["brightness"], content["contrast"]
        ground = content.get("ground")
        return PictureRange(
            (float(darkest), float(brightest)),
            (float(flattest), float(richest)),
            ground if ground in ("dark", "light") else None,
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _describe(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = pictures.reshape(len(pictures), -1)
    return flat.mean(axis=1), flat.std(axis=1)


def _find_ends(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _lie_outside(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    margin = MARGIN * (ends[1] - ends[0])
    return (values < ends[0] - margin) | (values > ends[1] + margin)
