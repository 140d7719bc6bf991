"""Reads one picture file that nobody vouches for, as the pixels that a model takes.

Whatever is wrong with a file is a DataError that names it. Sizes are checked before any pixel is decompressed.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from metarun.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # Pillow's decoders that may be tried
MOST_PIXELS = 1 << 26  # of a picture as it is stored: 67 million, 8,192 × 8,192
MOST_BYTES = 1 << 28  # of a file
WHITE = (255, 255, 255, 255)  # what is behind transparent pixels

_REMEDY = f"replace it, or take it out: pictures are {', '.join(SUFFIXES)}, up to 67 million pixels"
_MODES = {1: "L", 3: "RGB"}


class _Refused(Exception):
    """Why a picture is not read. Leaves this module as a DataError."""


def is_picture(path: Path) -> bool:
    """Whether the name says that it is a picture; names that begin with a dot are nobody's pictures."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_picture(path: Path, size: int | tuple[int, int], channels: int) -> np.ndarray:
    """The picture at `size` as uint8 [height, width, channel], 0 = black and 255 = white.

    It is turned as its EXIF orientation says, laid on white where it is transparent, greyed or coloured, and
    scaled by `scaled`; one that is not square is stretched. Of an animation it is the first frame.

    Args:
      size: pixels a side, or (height, width).
      channels: 1 for grey (ITU-R 601-2 luma), 3 for red, green and blue.

    Raises:
      DataError: there is no such file, or it is no picture, damaged, or above the limits of this module.
    """
    try:
        _check_file(path)
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise _Refused(f"{path.name} has {image.width} × {image.height} pixels")
            return scaled(_flattened(ImageOps.exif_transpose(image), channels), size)
    except _Refused as refusal:
        raise DataError(str(refusal), str(path), _REMEDY) from refusal
    except Exception as error:  # Pillow raises nearly anything on bytes that are not a good picture
        raise DataError(f"{path.name} is no readable picture", str(path), _REMEDY) from error


def scaled(picture: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """uint8 [height, width] or [height, width, channel] at another size, by Lanczos resampling.

    Lanczos filters before it samples. A picture of that size already is returned as it is.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if picture.shape[:2] == (height, width):
        return picture
    flat = picture[:, :, 0] if picture.shape[2:] == (1,) else picture
    image = Image.fromarray(flat).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, *picture.shape[2:])


def _check_file(path: Path) -> None:
    if not path.exists():
        raise _Refused(f"there is no {path.name}")
    if not path.is_file():  # a pipe would wait for ever
        raise _Refused(f"{path.name} is no file")
    if (length := path.stat().st_size) > MOST_BYTES:
        raise _Refused(f"{path.name} has {length:,} bytes")


def _flattened(image: Image.Image, channels: int) -> np.ndarray:
    """uint8 [height, width, channel] of any of Pillow's modes."""
    if image.mode == "F":
        raise _Refused("the picture has floating-point pixels, and nothing says which of them is white")
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit grey, which Pillow would cut off at 255
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((values.clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    return np.asarray(image.convert(_MODES[channels])).reshape(image.height, image.width, channels)
