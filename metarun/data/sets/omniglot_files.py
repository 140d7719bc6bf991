"""Omniglot: 1,623 handwritten characters of 50 alphabets, drawn by 20 people each.

Lake, Salakhutdinov, Tenenbaum: Human-level concept learning through probabilistic program induction, Science 350
(2015); MIT licence. A drawing is 105×105. Lanczos resampling of its grey values, which filters before it samples, makes
it smaller. The MAML authors' resize_images.py asks for Lanczos too, but for 1-bit images, and there Pillow always takes
the nearest pixel: their 28×28 images are black and white with broken strokes. Ours are grey, as learn2learn's are.
"""

import contextlib
import hashlib
import io
import itertools
import re
from collections.abc import Callable, Generator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from metarun.data import archives, cache, observers, parallel, picture_files
from metarun.data.sources import Progress, Source, stamp
from metarun.errors import ConfigError, DataError

NAME = "omniglot"
DRAWINGS = 20  # of each character, one by each person
ORIGINAL_SIZE = 105  # pixels, of width and height
SMALLEST_SIZE = 8  # pixels; in smaller pictures characters cannot be told apart
DECODER = 1  # raised whenever the decoded arrays change, so that older caches are made again

PUBLIC = "https://github.com/brendenlake/omniglot/raw/master/python"
# The larger public archive has 20,275 members of at most 0.6 kB in 9.5 MB.
LIMITS = archives.Limits(members=40_000, member_bytes=1 << 16, total_bytes=1 << 26)
REPORT_EVERY = 500  # drawings
BATCH = 100  # drawings that a thread decodes at a time: the fewer, the more handing over
# Each alphabet with the number of its characters, in the order of Omniglot.class_names.
ALPHABETS = """
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
"""


class Archive(NamedTuple):
    """One of the two archives."""

    source: Source
    classes: int


ARCHIVES = (
    Archive(
        Source(
            file="omniglot/images_background.zip",
            urls=(f"{PUBLIC}/images_background.zip",),
            packed="md5:68d2efa1b9178cc56df9314c21c6e718",
            content="f32435a80e3966c7aa29e20298c2c9ec9947dbf555cecea37d51cfc8e1365fa0",
            bytes=9_464_212,
        ),
        classes=964,
    ),
    Archive(
        Source(
            file="omniglot/images_evaluation.zip",
            urls=(f"{PUBLIC}/images_evaluation.zip",),
            packed="md5:6b91aef0f799c5bb55b94e3f2daec811",
            content="eb68a59f8009779aa59cff308d7af8e3b946a55d740dad6a8ed9364f7c20fa27",
            bytes=6_462_886,
        ),
        classes=659,
    ),
)
SOURCES = tuple(archive.source for archive in ARCHIVES)


class Drawing(NamedTuple):
    """A drawing as it is in its archive, and at the size that was asked for; 0 is ink and 255 paper."""

    name: str  # of the member
    original: np.ndarray  # uint8 [height, width]
    resized: np.ndarray  # uint8 [height, width]


class Omniglot(NamedTuple):
    """All characters, first those of images_background, then those of images_evaluation."""

    images: np.ndarray  # uint8 [class, drawing, height, width], read-only; ink is 255, paper 0
    alphabet: np.ndarray  # int32 [class], an index of alphabet_names
    alphabet_names: tuple[str, ...]
    class_names: tuple[str, ...]  # "Greek/character07"; within each archive in sorted order of the paths
    background: int  # the classes [0, background) are images_background


def list_class_names() -> tuple[str, ...]:
    """Return `Omniglot.class_names` without reading the archives."""
    alphabets = [word.split(":") for word in ALPHABETS.split()]
    return tuple(
        f"{name}/character{number + 1:02}" for name, count in alphabets for number in range(int(count))
    )


def load(root: Path, size: int = 28, progress: Progress | None = None) -> Omniglot:
    """Return all of Omniglot at size×size pixels, decoded from the archives below the data root or from the cache.

    Raises:
      ConfigError: the size is not between 8 and 105.
      DataError: an archive is missing, or is not the published one.
      StorageError: the cache cannot be written.
    """
    return _load(root, size, ARCHIVES, progress)


def content_digest(source: Source, path: Path, progress: Progress | None = None) -> str:
    """Return the SHA-256 of the drawings in sorted path order, each as 105×105 bytes, 0 = ink and 255 = paper."""
    digest, count = hashlib.sha256(), _make_counter(progress, 0, f"checking {path.name}")
    with contextlib.closing(_read_drawings(source, path)) as drawings:
        for drawing in drawings:
            digest.update(drawing.original.tobytes())
            count()
    return digest.hexdigest()


def _load(root: Path, size: int, published: tuple[Archive, ...], progress: Progress | None) -> Omniglot:
    if not SMALLEST_SIZE <= size <= ORIGINAL_SIZE:
        allowed = f"choose {SMALLEST_SIZE} to {ORIGINAL_SIZE} pixels"
        raise ConfigError(f"Omniglot at {size} pixels", "image size", allowed)
    classes = sum(archive.classes for archive in published)
    entry = cache.load_or_make(
        f"{NAME}-{size}",
        recipe={
            "decoder": DECODER,
            "size": size,
            "archives": {archive.source.file: stamp(archive.source, root) for archive in published},
        },
        layout={"images": cache.Layout((classes, DRAWINGS, size, size), np.uint8)},
        make=lambda: _decode(root, size, published, progress or observers.current_observer()),
    )
    class_names = tuple(entry.facts["class_names"])
    alphabets = [name.split("/")[0] for name in class_names]
    alphabet_names = tuple(dict.fromkeys(alphabets))
    alphabet = np.array([alphabet_names.index(name) for name in alphabets], dtype=np.int32)
    return Omniglot(entry.arrays["images"], alphabet, alphabet_names, class_names, published[0].classes)


def _decode(root: Path, size: int, published: tuple[Archive, ...], progress: Progress | None) -> cache.Entry:
    classes = sum(archive.classes for archive in published)
    images = np.empty((classes, DRAWINGS, size, size), dtype=np.uint8)
    count = _make_counter(progress, classes * DRAWINGS, "decoding Omniglot")
    class_names: list[str] = []
    for archive in published:
        start = len(class_names)
        class_names += _decode_archive(archive, root, images[start : start + archive.classes], count)
    return cache.Entry({"images": images}, {"class_names": class_names})


def _decode_archive(archive: Archive, root: Path, images: np.ndarray, count: Callable[[], None]) -> list[str]:
    """Fill images [class, drawing, height, width], and return the names of the classes."""
    source, path = archive.source, archive.source.path(root)
    flat = images.reshape(-1, *images.shape[2:])
    digest = hashlib.sha256()
    names: list[str] = []
    with contextlib.closing(_read_drawings(source, path, images.shape[-1])) as drawings:
        for drawing in drawings:
            if len(names) < len(flat):
                flat[len(names)] = 255 - drawing.resized
            digest.update(drawing.original.tobytes())
            names.append(str(PurePosixPath(drawing.name).parent.relative_to(path.stem)))
            count()
    complete = names == [name for name in sorted(set(names)) for _ in range(DRAWINGS)]
    if len(names) != len(flat) or not complete:
        fault = f"holds {len(names)} drawings, not {DRAWINGS} of each of {archive.classes} characters"
        raise DataError(f"{path.name} {fault}", str(path), source.remedy)
    if digest.hexdigest() != source.content:
        raise DataError(f"{path.name} was altered: its drawings are not Omniglot's", str(path), source.remedy)
    return names[::DRAWINGS]


def _read_drawings(source: Source, path: Path, size: int = ORIGINAL_SIZE) -> Generator[Drawing, None, None]:
    """Yield the drawings in sorted order of their names. Some threads decode and resize them."""
    folder = PurePosixPath(source.file).stem
    expected = re.compile(rf"{folder}/[\w()-]+/character\d\d/\d{{4}}_\d\d\.png", re.ASCII)
    members = archives.read_members(path, expected, LIMITS, source.remedy)

    def decode(batch: list[tuple[str, bytes]]) -> list[Drawing]:
        return [_decode_member(source, path, size, *member) for member in batch]

    for drawings in parallel.map_batches(decode, members, BATCH):
        yield from drawings


def _decode_member(source: Source, path: Path, size: int, name: str, content: bytes) -> Drawing:
    try:
        drawing = _decode_drawing(content)
    except Exception as error:  # Pillow raises nearly anything on bytes that are not a good PNG
        fault = f"{name!r} is not a PNG drawing of {ORIGINAL_SIZE}×{ORIGINAL_SIZE} pixels"
        raise DataError(f"{path.name} is damaged: {fault}", str(path), source.remedy) from error
    return Drawing(name, drawing, picture_files.resize(drawing, size))


def _decode_drawing(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.size != (ORIGINAL_SIZE, ORIGINAL_SIZE):  # known before any pixel is decompressed
            raise ValueError(image.size)
        return np.asarray(image.convert("L"))


def _make_counter(progress: Progress | None, total: int, description: str) -> Callable[[], None]:
    """Make the function to call for each drawing."""
    numbers = itertools.count(1)

    def count() -> None:
        done = next(numbers)
        if progress is not None and (done % REPORT_EVERY == 0 or done == total):
            progress(done, total, description)

    return count
