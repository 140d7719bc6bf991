"""How a picture file becomes the input of a network: its side, its window, the scale of its values.

A preparation is data alone, so that a cache of features and a finished run can be identified by it. The steps are
those of the usual libraries: turn as EXIF says, resize until the shorter side is `resize`, cut the square of side
`size` out of the middle, divide by 255, subtract the mean, divide by the deviation.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from metarun.data import picture_files

Crop = Literal["centre", "random", "stretch"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
LONGEST = 4  # times the shorter side; beyond it the ends are cut off before the picture is resized
MARGIN = (8, 7)  # of the square that random windows are cut from, as 256 to 224


@dataclass(frozen=True)
class Preparation:
    """How a picture file becomes the input of a network. `centre` and `random` keep the shapes in the picture.

    Raises:
      ValueError: `resize` is below `size`, or mean and deviation do not fit the channels.
    """

    size: int  # pixels a side of the result
    # Pixels of the shorter side before the square is cut out, with stretch of both sides; None: `size`, and 8/7 of it
    # for random.
    resize: int | None = None
    # centre: the square in the middle; stretch: the whole picture, its sides made equal; random: training cuts its
    # windows from the square of side `resize` on the device, and `read` gives the one in the middle.
    crop: Crop = "centre"
    # One number for each channel, for values in [0, 1]: the result is (value - mean) / deviation. Empty: 0, and 1.
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    channels: int = 3  # 1: grey; 3: red, green, blue
    interpolation: Interpolation = "lanczos"

    def __post_init__(self):
        if self.resize is not None and self.resize < self.size:
            what = f"resize {self.resize} is below size {self.size}"
            raise ValueError(what, "give a resize of at least the size, or null")
        for name in ("mean", "deviation"):
            values = getattr(self, name)
            if values and len(values) != self.channels:
                what = f"{name} has {len(values)} numbers, and a picture has {self.channels} channels"
                raise ValueError(what, "give one number for each channel")
        if any(value <= 0 for value in self.deviation):
            raise ValueError("deviation has a number that is not above 0", "give standard deviations")

    @property
    def shorter(self) -> int:
        """The pixels of the shorter side after resizing."""
        usual = self.size * MARGIN[0] // MARGIN[1] if self.crop == "random" else self.size
        return self.resize or usual

    def digest(self) -> str:
        """Return a hash of all that decides the values, 64 hexadecimal digits; the same on every machine."""
        fields = dataclasses.asdict(self) | {"resize": self.shorter}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def decode(self, path: Path, *, whole: bool = False) -> np.ndarray:
        """Return a picture as uint8 [height, width, channel], before mean and deviation.

        Args:
          whole: give the square of side `shorter`, which windows of `size` are cut from.

        Raises:
          DataError: as `picture_files.read_picture` does.
        """
        side = self.shorter if whole else self.size
        if self.crop == "stretch" and side == self.shorter and self.interpolation == "lanczos":
            return picture_files.read_picture(path, side, self.channels)
        return picture_files.read_picture(
            path, side, self.channels, lambda picture: cut_middle(self._resize(picture), side)
        )

    def normalise(self, pictures: np.ndarray) -> np.ndarray:
        """Return uint8 [..., channel] as float32: in [0, 1], or less the mean and divided by the deviation."""
        values = pictures.astype(np.float32) / 255
        if self.mean:
            values = values - np.array(self.mean, np.float32)
        return values / np.array(self.deviation, np.float32) if self.deviation else values

    def read(self, path: Path) -> np.ndarray:
        """Return a picture as float32 [height, width, channel].

        Raises:
          DataError: there is no such file, or it is no picture, damaged, or beyond the limits of `picture_files`.
        """
        return self.normalise(self.decode(path))

    def _resize(self, picture: np.ndarray) -> np.ndarray:
        """Return uint8 [height, width, channel] with a shorter side of `shorter`, or both sides with stretch."""
        shorter = self.shorter
        if self.crop == "stretch":
            return resample(picture, (shorter, shorter), self.interpolation)
        picture = cut_ends(picture)
        height, width = picture.shape[:2]
        least = min(height, width)
        return resample(picture, (shorter * height // least, shorter * width // least), self.interpolation)


def resample(picture: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Return a picture, uint8 [height, width, channel], at another (height, width).

    All interpolations but nearest filter before they sample.
    """
    if picture.shape[:2] == size:
        return picture
    flat = picture[:, :, 0] if picture.shape[2] == 1 else picture
    image = Image.fromarray(flat).resize((size[1], size[0]), FILTERS[interpolation])
    return np.asarray(image).reshape(*size, picture.shape[2])


def cut_ends(picture: np.ndarray) -> np.ndarray:
    """Return the middle of a picture whose longer side is more than LONGEST times the shorter one."""
    most = LONGEST * min(picture.shape[:2])
    top, left = (max(0, length - most) // 2 for length in picture.shape[:2])
    return picture[top : top + most, left : left + most]


def cut_middle(picture: Any, size: int) -> Any:
    """Return the square of `size` pixels in the middle of an array [..., height, width, channel], numpy's or jax's.

    An odd rest of 2k + 1 is halved to an even number, as torchvision's `CenterCrop` rounds it.
    """
    top, left = (round((length - size) / 2) for length in picture.shape[-3:-1])
    return picture[..., top : top + size, left : left + size, :]
