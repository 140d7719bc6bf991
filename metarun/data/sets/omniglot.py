"""Omniglot: 1,623 handwritten characters of 50 alphabets, drawn by 20 people each.

Lake, Salakhutdinov, Tenenbaum: Human-level concept learning through probabilistic program induction,
Science 350 (2015); MIT licence. A drawing is 105×105, and is scaled down by Lanczos resampling of its
grey values, which filters before it samples. The MAML authors' resize_images.py asks for Lanczos too,
but of 1-bit images, for which Pillow takes the nearest pixel whatever is asked: their 28×28 images are
black and white with broken strokes. Ours are grey, as learn2learn's are.
"""

import hashlib
import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from metarun.data import archives, cache, pictures
from metarun.data.sources import Progress, Source, stamp
from metarun.errors import ConfigError, DataError

NAME = "omniglot"
DRAWINGS = 20  # of each character, one per person
ORIGINAL_SIZE = 105  # pixels, of width and height
SMALLEST_SIZE = 8  # pixels: below, characters are no longer told apart
DECODER = 1  # counts up whenever the decoded arrays change, so that older caches are made again

_PUBLIC = "https://github.com/brendenlake/omniglot/raw/master/python"
# The larger public archive has 20,275 members of at most 0.6 kB in 9.5 MB.
_LIMITS = archives.Limits(members=40_000, member_bytes=1 << 16, total_bytes=1 << 26)
_REPORT_EVERY = 500  # drawings
_ALPHABETS = """
Alphabet_of_the_Magi:20 Anglo-Saxon_Futhorc:29 Arcadian:26 Armenian:41 Asomtavruli_(Georgian):40
Balinese:24 Bengali:46 Blackfoot_(Canadian_Aboriginal_Syllabics):14 Braille:26 Burmese_(Myanmar):34
Cyrillic:33 Early_Aramaic:22 Futurama:26 Grantha:43 Greek:24 Gujarati:48 Hebrew:22
Inuktitut_(Canadian_Aboriginal_Syllabics):16 Japanese_(hiragana):52 Japanese_(katakana):47 Korean:40
Latin:26 Malay_(Jawi_-_Arabic):40 Mkhedruli_(Georgian):41 N_Ko:33
Ojibwe_(Canadian_Aboriginal_Syllabics):14 Sanskrit:42 Syriac_(Estrangelo):23 Tagalog:17 Tifinagh:55
Angelic:20 Atemayar_Qelisayer:26 Atlantean:26 Aurek-Besh:26 Avesta:26 Ge_ez:26 Glagolitic:45
Gurmukhi:45 Kannada:41 Keble:26 Malayalam:47 Manipuri:40 Mongolian:30
Old_Church_Slavonic_(Cyrillic):45 Oriya:46 Sylheti:28 Syriac_(Serto):23 Tengwar:25 Tibetan:42
ULOG:26
"""  # with the number of their characters, in the order of Omniglot.class_names


class Part(NamedTuple):
    """One of the two archives."""

    source: Source
    classes: int


PARTS = (
    Part(
        Source(
            file="omniglot/images_background.zip",
            urls=(f"{_PUBLIC}/images_background.zip",),
            packed="md5:68d2efa1b9178cc56df9314c21c6e718",
            content="f32435a80e3966c7aa29e20298c2c9ec9947dbf555cecea37d51cfc8e1365fa0",
            bytes=9_464_212,
        ),
        classes=964,
    ),
    Part(
        Source(
            file="omniglot/images_evaluation.zip",
            urls=(f"{_PUBLIC}/images_evaluation.zip",),
            packed="md5:6b91aef0f799c5bb55b94e3f2daec811",
            content="eb68a59f8009779aa59cff308d7af8e3b946a55d740dad6a8ed9364f7c20fa27",
            bytes=6_462_886,
        ),
        classes=659,
    ),
)
SOURCES = tuple(part.source for part in PARTS)


class Omniglot(NamedTuple):
    """All characters: those of images_background first, then those of images_evaluation."""

    images: np.ndarray  # uint8 [class, drawing, height, width], read-only; ink is 255, paper 0
    alphabet: np.ndarray  # int32 [class], an index of alphabet_names
    alphabet_names: tuple[str, ...]
    class_names: tuple[str, ...]  # "Greek/character07"; in sorted order of the paths within each archive
    background: int  # the classes [0, background) are images_background


def class_names() -> tuple[str, ...]:
    """`Omniglot.class_names`, without the archives."""
    alphabets = [word.split(":") for word in _ALPHABETS.split()]
    return tuple(
        f"{name}/character{number + 1:02}" for name, count in alphabets for number in range(int(count))
    )


def load(root: Path, size: int = 28, progress: Progress | None = None) -> Omniglot:
    """All of Omniglot at size×size pixels, decoded from the archives below the data root or from the cache.

    Raises ConfigError unless 8 <= size <= 105, DataError when an archive is missing or is not the published
    one, StorageError when the cache cannot be written.
    """
    return _load(root, size, PARTS, progress)


def content_digest(source: Source, path: Path, progress: Progress | None = None) -> str:
    """SHA-256 over the drawings in sorted path order, each as 105×105 bytes, 0 = ink and 255 = paper."""
    digest, count = hashlib.sha256(), _counter(progress, 0, f"checking {path.name}")
    for _, drawing in _drawings(source, path):
        digest.update(drawing.tobytes())
        count()
    return digest.hexdigest()


def _load(root: Path, size: int, parts: tuple[Part, ...], progress: Progress | None) -> Omniglot:
    if not SMALLEST_SIZE <= size <= ORIGINAL_SIZE:
        allowed = f"choose {SMALLEST_SIZE} to {ORIGINAL_SIZE} pixels"
        raise ConfigError(f"Omniglot at {size} pixels", "image size", allowed)
    classes = sum(part.classes for part in parts)
    entry = cache.load_or_make(
        f"{NAME}-{size}",
        recipe={
            "decoder": DECODER,
            "size": size,
            "archives": {part.source.file: stamp(part.source, root) for part in parts},
        },
        layout={"images": cache.Layout((classes, DRAWINGS, size, size), np.uint8)},
        make=lambda: _decode(root, size, parts, progress),
    )
    class_names = tuple(entry.facts["class_names"])
    alphabets = [name.split("/")[0] for name in class_names]
    alphabet_names = tuple(dict.fromkeys(alphabets))
    alphabet = np.array([alphabet_names.index(name) for name in alphabets], dtype=np.int32)
    return Omniglot(entry.arrays["images"], alphabet, alphabet_names, class_names, parts[0].classes)


def _decode(root: Path, size: int, parts: tuple[Part, ...], progress: Progress | None) -> cache.Entry:
    classes = sum(part.classes for part in parts)
    images = np.empty((classes, DRAWINGS, size, size), dtype=np.uint8)
    count = _counter(progress, classes * DRAWINGS, "decoding Omniglot")
    class_names: list[str] = []
    for part in parts:
        start = len(class_names)
        class_names += _decode_part(part, root, images[start : start + part.classes], count)
    return cache.Entry({"images": images}, {"class_names": class_names})


def _decode_part(part: Part, root: Path, images: np.ndarray, count: Callable[[], None]) -> list[str]:
    """Fills images [class, drawing, height, width] and returns the names of its classes."""
    source, path = part.source, part.source.path(root)
    flat = images.reshape(-1, *images.shape[2:])
    digest = hashlib.sha256()
    names: list[str] = []
    for name, drawing in _drawings(source, path):
        if len(names) < len(flat):
            flat[len(names)] = 255 - pictures.scaled(drawing, images.shape[-1])
        digest.update(drawing.tobytes())
        names.append(str(PurePosixPath(name).parent.relative_to(path.stem)))
        count()
    complete = names == [name for name in sorted(set(names)) for _ in range(DRAWINGS)]
    if len(names) != len(flat) or not complete:
        fault = f"holds {len(names)} drawings, not {DRAWINGS} of each of {part.classes} characters"
        raise DataError(f"{path.name} {fault}", str(path), source.remedy)
    if digest.hexdigest() != source.content:
        raise DataError(f"{path.name} was altered: its drawings are not Omniglot's", str(path), source.remedy)
    return names[::DRAWINGS]


def _drawings(source: Source, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (member name, uint8 [height, width], 0 = ink and 255 = paper) in sorted order of the names."""
    folder = PurePosixPath(source.file).stem
    expected = re.compile(rf"{folder}/[\w()-]+/character\d\d/\d{{4}}_\d\d\.png", re.ASCII)
    for name, content in archives.read_members(path, expected, _LIMITS, source.remedy):
        try:
            drawing = _decoded(content)
        except Exception as error:  # Pillow raises nearly anything on bytes that are not a good PNG
            fault = f"{name!r} is not a PNG drawing of {ORIGINAL_SIZE}×{ORIGINAL_SIZE} pixels"
            raise DataError(f"{path.name} is damaged: {fault}", str(path), source.remedy) from error
        yield name, drawing


def _decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.size != (ORIGINAL_SIZE, ORIGINAL_SIZE):  # known before any pixel is decompressed
            raise ValueError(image.size)
        return np.asarray(image.convert("L"))


def _counter(progress: Progress | None, total: int, description: str) -> Callable[[], None]:
    """A function to call for each drawing."""
    numbers = itertools.count(1)

    def count() -> None:
        done = next(numbers)
        if progress is not None and (done % _REPORT_EVERY == 0 or done == total):
            progress(done, total, description)

    return count
