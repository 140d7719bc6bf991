"""MNIST: 70,000 handwritten digits, and any other folder of four idx files that are named as MNIST's.

LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, Proc. IEEE 86 (1998);
CC BY-SA 3.0. Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747) and Kuzushiji-MNIST (Clanuwat et al. 2018,
arXiv 1812.01718) are such folders. MNIST itself is compared with its published content. Of another folder the sizes,
the counts and the labels are checked, so that what is read is a data set, but nobody can say which.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarun.data import cache, idx
from metarun.data.sources import Progress, Source, stamp
from metarun.data.storage import storage_errors
from metarun.errors import DataError

NAME = "mnist"
SIDE = 28  # pixels, of width and height, in MNIST itself
CLASSES = 10  # in MNIST itself
TRAIN, TEST = 60_000, 10_000  # pictures of MNIST itself
SMALLEST_SIDE = 8  # pixels: below, digits are no longer told apart
DECODER = 1  # counts up whenever the decoded arrays change, so that older caches are made again

_PUBLIC = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)
_IMAGE_AXES, _LABEL_AXES = 3, 1  # example, height, width; example


def _source(file: str, packed: str, content: str, size: int) -> Source:
    return Source(f"{NAME}/{file}", tuple(f"{url}/{file}" for url in _PUBLIC), f"md5:{packed}", content, size)


SOURCES = (
    _source(
        "train-images-idx3-ubyte.gz",
        packed="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        content="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        size=9_912_422,
    ),
    _source(
        "train-labels-idx1-ubyte.gz",
        packed="d53e105ee54ea40749a09fcbcd1e9432",
        content="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        size=28_881,
    ),
    _source(
        "t10k-images-idx3-ubyte.gz",
        packed="9fb629c4189551a2d022fa330f9573f3",
        content="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        size=1_648_877,
    ),
    _source(
        "t10k-labels-idx1-ubyte.gz",
        packed="ec29112dd5afa0611ce80d1b7f02629c",
        content="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        size=4_542,
    ),
)


class Part(NamedTuple):
    """The training or the test pictures, sorted by label; in their original order within a label."""

    images: np.ndarray  # uint8 [example, height, width], read-only; ink is 255, paper 0
    labels: np.ndarray  # uint8 [example]


class Mnist(NamedTuple):
    """Both parts; every label of one occurs in the other."""

    train: Part
    test: Part


def load(root: Path, folder: Path | None = None, progress: Progress | None = None) -> Mnist:
    """MNIST from below the data root, or the data set of another folder; from the cache after the first time.

    The files may be gzipped or plain, and the plain ones may be called `train-images.idx3-ubyte`. Raises DataError
    when one is missing, damaged, or not the published one or, in another folder, does not fit the others;
    StorageError when a file cannot be read or the cache cannot be written.
    """
    return _load(root, SOURCES, folder, progress)


def content_digest(source: Source, path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of the decompressed idx file."""
    return _digest(*idx.read_bytes(path, _axes(source), source.remedy))


class _File(NamedTuple):
    """One of the four files, where it was found."""

    path: Path
    axes: int
    content: str  # the SHA-256 that it must have; "" of a folder that is not MNIST's
    remedy: str  # when there is something wrong with it


def _load(root: Path, sources: tuple[Source, ...], folder: Path | None, progress: Progress | None) -> Mnist:
    files = [_find(source, root, folder) for source in sources]
    sizes = [idx.read_sizes(file.path, file.axes, file.remedy) for file in files]
    _check_sizes(files, sizes)
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    entry = cache.load_or_make(
        NAME
        if folder is None
        else f"{NAME}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}",
        recipe={"decoder": DECODER, "files": {str(file.path.absolute()): _stamp(file) for file in files}},
        layout={key: cache.Layout(shape, np.uint8) for key, shape in zip(keys, sizes, strict=True)},
        make=lambda: _decode(files, progress),
    )
    train_images, train_labels, test_images, test_labels = (entry.arrays[key] for key in keys)
    return Mnist(Part(train_images, train_labels), Part(test_images, test_labels))


def _find(source: Source, root: Path, folder: Path | None) -> _File:
    """The file of a source, or the one of another folder that has its name; the first of its spellings."""
    published = source.path(root)
    packed, plain = published.name, published.name.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")
    where = published.parent if folder is None else folder
    names = (packed, plain, dotted, f"{dotted}.gz")
    with storage_errors(f"cannot look at {packed}", where, "METARUN_DATA"):
        found = next((where / name for name in names if (where / name).exists()), None)
    if folder is None:
        return _File(found or published, _axes(source), source.content, source.remedy)
    remedy = f"a folder of idx files needs {packed}, gzipped or not, and the three others of MNIST's names"
    return _File(found or where / packed, _axes(source), "", remedy)


def _check_sizes(files: list[_File], sizes: list[tuple[int, ...]]) -> None:
    """Refuse pictures without labels, and test pictures of another size than the training pictures."""
    for images, labels in ((0, 1), (2, 3)):
        pictures, labelled = sizes[images][0], sizes[labels][0]
        if pictures != labelled:
            fault = f"{files[images].path.name} has {pictures} pictures, and there are {labelled} labels"
            raise DataError(fault, str(files[labels].path), files[labels].remedy)
    side, other = sizes[0][1:], sizes[2][1:]
    if side != other:
        fault = f"training pictures of {side[0]}×{side[1]} pixels, test pictures of {other[0]}×{other[1]}"
        raise DataError(fault, str(files[2].path), files[2].remedy)
    if min(side) < SMALLEST_SIDE:
        fault = f"pictures of {side[0]}×{side[1]} pixels, smaller than {SMALLEST_SIDE}×{SMALLEST_SIDE}"
        raise DataError(fault, str(files[0].path), files[0].remedy)


def _stamp(file: _File) -> dict[str, int | str]:
    found = Source(file.path.name, (), "", file.content, 0)
    return stamp(found, file.path.parent)


def _decode(files: list[_File], progress: Progress | None) -> cache.Entry:
    values = []
    for number, file in enumerate(files):
        header, content = idx.read_bytes(file.path, file.axes, file.remedy)
        if file.content and _digest(header, content) != file.content:
            what = f"{file.path.name} was altered: its content is not MNIST's"
            raise DataError(what, str(file.path), file.remedy)
        values.append(idx.to_array(header, content))
        if progress is not None:
            progress(number + 1, len(files), "decoding MNIST")
    train_images, train_labels, test_images, test_labels = values
    alone = sorted(set(train_labels.tolist()) ^ set(test_labels.tolist()))
    if alone:
        what = f"label {alone[0]} occurs in training alone or in test alone"
        raise DataError(what, str(files[3].path), files[3].remedy)
    arrays: dict[str, np.ndarray] = {}
    for part, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        order = np.argsort(labels, kind="stable")
        arrays |= {f"{part}_images": images[order], f"{part}_labels": labels[order]}
    return cache.Entry(arrays, {})


def _axes(source: Source) -> int:
    return _IMAGE_AXES if "idx3" in source.file else _LABEL_AXES


def _digest(header: bytes, values: bytes) -> str:
    digest = hashlib.sha256(header)
    digest.update(values)
    return digest.hexdigest()
