"""Picture files that nobody vouches for, read as the pixels that a model takes.

Anything wrong with a file is a DataError that names it. Sizes are checked before any pixel is decompressed. Pictures of
telephones (HEIC, HEIF) need the extra `heic`; without it they are refused by name.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from metarun.data import decode_memory
from metarun.errors import DataError

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm"),
    *(".heic", ".heif"),
)
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # Pillow's decoders that may be tried
# What the bytes 4 to 12 of a HEIC file are (ISO 14496-12, 4.3; ISO 23008-12, B.4): its box and its first brand.
HEIC_BRANDS = tuple(
    b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
)
HEIC_EXTRA = "pip install 'metarun[heic]'"
HEIC_REMEDY = f"{HEIC_EXTRA}, or save it as .jpg"
MOST_PIXELS = 1 << 26  # of a picture as it is stored: 67 million, 8,192 × 8,192
MOST_SIDE = 1 << 15  # pixels: 32,768; a filter as long as a longer side would take seconds
PIXEL_BYTES = 16  # of memory that a pixel takes at most while it is decoded: four bytes in four pictures
MOST_BYTES = 1 << 28  # of a file
WHITE = (255, 255, 255, 255)  # the colour behind transparent pixels

REMEDY = f"replace it, or take it out: pictures are {', '.join(SUFFIXES)}, up to 67 million pixels and 32,768 a side"
MODES = {1: "L", 3: "RGB"}


class _Refused(Exception):
    """The reason why a picture is not read, and what to do. Leaves this module as a DataError."""

    def __init__(self, what: str, remedy: str = REMEDY) -> None:
        super().__init__(what)
        self.remedy = remedy


def is_picture(path: Path) -> bool:
    """Return whether the name is that of a picture. Names that begin with a dot are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_picture(
    path: Path,
    size: int | tuple[int, int],
    channels: int,
    shape: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Return a picture at `size` as uint8 [height, width, channel], 0 = black and 255 = white.

    The picture is turned as its EXIF orientation says, transparent pixels become white, colours become grey or grey
    becomes colours, and `resize` brings it to its size; a picture of another shape is stretched. An animation gives
    its first frame.

    Args:
      size: pixels a side, or (height, width).
      channels: 1 for grey (ITU-R 601-2 luma), 3 for red, green and blue.
      shape: brings the pixels, uint8 [height, width, channel], to their size in place of `resize`, as a
        `preparation.Preparation` does.

    Raises:
      DataError: there is no such file, or it is no picture, damaged, or beyond the limits of this module.
    """
    try:
        _check_file(path)
        with Image.open(path, formats=_choose_formats(path)) as image:
            pixels = image.width * image.height
            if pixels > MOST_PIXELS or max(image.size) > MOST_SIDE:
                raise _Refused(f"{path.name} has {image.width} × {image.height} pixels")
            with decode_memory.DECODING.hold(pixels * PIXEL_BYTES):
                pixels_read = _flatten(ImageOps.exif_transpose(image), channels)
                return resize(pixels_read, size) if shape is None else shape(pixels_read)
    except _Refused as refusal:
        raise DataError(str(refusal), str(path), refusal.remedy) from refusal
    except Exception as error:  # Pillow raises nearly anything on bytes that are not a good picture
        raise DataError(f"{path.name} is no readable picture", str(path), REMEDY) from error


def resize(picture: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Return a picture, uint8 [height, width] or [height, width, channel], at another size by Lanczos resampling.

    Lanczos filters before it samples. A picture that has the size already is returned as it is.
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
    if not path.is_file():  # opening a pipe would never return
        raise _Refused(f"{path.name} is no file")
    if (length := path.stat().st_size) > MOST_BYTES:
        raise _Refused(f"{path.name} has {length:,} bytes")


def _choose_formats(path: Path) -> tuple[str, ...]:
    """Return the decoders that may be tried on a file: by its first bytes, that of HEIC or all others."""
    with path.open("rb") as file:
        first = file.read(12)[4:]
    if not first.startswith(HEIC_BRANDS):
        return FORMATS
    plugin = import_heif()
    if plugin is None:
        raise _Refused(f"{path.name} is a HEIC picture, which needs {HEIC_EXTRA}", HEIC_REMEDY)
    plugin.register_heif_opener(thumbnails=False)
    return ("HEIF",)


def import_heif() -> Any:
    """Return the package `pillow_heif`, which only HEIC pictures need; None: it is not installed."""
    try:
        import pillow_heif
    except ImportError:
        return None
    return pillow_heif


def _flatten(image: Image.Image, channels: int) -> np.ndarray:
    """Return a picture of any of Pillow's modes as uint8 [height, width, channel]."""
    if image.mode == "F":
        raise _Refused("the picture has floating-point pixels, and nothing says which of them is white")
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit grey, which Pillow would cut off at 255
        values = np.asarray(image).clip(0, 65535)
        image = Image.fromarray((values // 257).astype(np.uint8))
    if image.mode == "LAB":  # Pillow knows the way from it to colours alone
        image = image.convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    return np.asarray(image.convert(MODES[channels])).reshape(image.height, image.width, channels)
