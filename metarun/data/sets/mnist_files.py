"""MNIST: 70,000 handwritten digits; also any other folder of four idx files with the names of MNIST's files.

LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, Proc. IEEE 86 (1998);
CC BY-SA 3.0. Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747) and Kuzushiji-MNIST (Clanuwat et al. 2018,
arXiv 1812.01718) are such folders. MNIST itself is compared with its published content. In another folder only the
sizes, the counts and the labels are checked: it is then a data set, but nobody can say which.
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
SMALLEST_SIDE = 8  # pixels; in smaller pictures digits cannot be told apart
DECODER = 1  # raised whenever the decoded arrays change, so that older caches are made again

PUBLIC = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)
IMAGE_AXES, LABEL_AXES = 3, 1  # example, height, width; example


def _make_source(file: str, packed: str, content: str, size: int) -> Source:
    return Source(f"{NAME}/{file}", tuple(f"{url}/{file}" for url in PUBLIC), f"md5:{packed}", content, size)


SOURCES = (
    _make_source(
        "train-images-idx3-ubyte.gz",
        packed="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        content="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        size=9_912_422,
    ),
    _make_source(
        "train-labels-idx1-ubyte.gz",
        packed="d53e105ee54ea40749a09fcbcd1e9432",
        content="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        size=28_881,
    ),
    _make_source(
        "t10k-images-idx3-ubyte.gz",
        packed="9fb629c4189551a2d022fa330f9573f3",
        content="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        size=1_648_877,
    ),
    _make_source(
        "t10k-labels-idx1-ubyte.gz",
        packed="ec29112dd5afa0611ce80d1b7f02629c",
        content="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        size=4_542,
    ),
)


class Pictures(NamedTuple):
    """The training or the test pictures, sorted by label, and in their original order within a label."""

    images: np.ndarray  # uint8 [example, height, width], read-only; ink is 255, paper 0
    labels: np.ndarray  # uint8 [example]


class Mnist(NamedTuple):
    """The training and the test pictures. Every label of one occurs in the other."""

    train: Pictures
    test: Pictures


def load(root: Path, folder: Path | None = None, progress: Progress | None = None) -> Mnist:
    """Return MNIST from below the data root, or the data set of another folder; from the cache after the first time.

    The files may be gzipped or plain, and the plain ones may be called `train-images.idx3-ubyte`.

    Raises:
      DataError: a file is missing, damaged, or not the published one; or files of another folder do not fit together.
      StorageError: a file cannot be read, or the cache cannot be written.
    """
    return _load(root, SOURCES, folder, progress)


def content_digest(source: Source, path: Path, progress: Progress | None = None) -> str:
    """Return the SHA-256 of the decompressed idx file."""
    return _digest(*idx.read_bytes(path, _count_axes(source), source.remedy))


class _File(NamedTuple):
    """One of the four files, and where it lies."""

    path: Path
    axes: int
    content: str  # the SHA-256 that it must have; "" in a folder that is not MNIST's
    remedy: str  # what to do if something is wrong with it


def _load(root: Path, sources: tuple[Source, ...], folder: Path | None, progress: Progress | None) -> Mnist:
    files = [_find_file(source, root, folder) for source in sources]
    sizes = [idx.read_sizes(file.path, file.axes, file.remedy) for file in files]
    _check_sizes(files, sizes)
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    identity = "" if folder is None else f"-{_digest(str(folder.resolve()).encode())[:16]}"
    entry = cache.load_or_make(
        f"{NAME}{identity}",
        recipe={"decoder": DECODER, "files": {str(file.path.absolute()): _stamp(file) for file in files}},
        layout={key: cache.Layout(shape, np.uint8) for key, shape in zip(keys, sizes, strict=True)},
        make=lambda: _decode(files, progress),
    )
    train_images, train_labels, test_images, test_labels = (entry.arrays[key] for key in keys)
    return Mnist(Pictures(train_images, train_labels), Pictures(test_images, test_labels))


def _find_file(source: Source, root: Path, folder: Path | None) -> _File:
    """Return the file of a source, or the one of its name in another folder; the first spelling that exists counts."""
    published = source.path(root)
    packed, plain = published.name, published.name.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")
    where = published.parent if folder is None else folder
    names = (packed, plain, dotted, f"{dotted}.gz")
    with storage_errors(f"cannot look at {packed}", where, "METARUN_DATA"):
        path = next((where / name for name in names if (where / name).exists()), None)
    if folder is None:
        return _File(path or published, _count_axes(source), source.content, source.remedy)
    remedy = f"a folder of idx files needs {packed}, gzipped or not, and the three others of MNIST's names"
    return _File(path or where / packed, _count_axes(source), "", remedy)


def _check_sizes(files: list[_File], sizes: list[tuple[int, ...]]) -> None:
    """Refuse pictures without labels, and test pictures of another size than the training pictures."""
    for images, labels in ((0, 1), (2, 3)):
        pictures, label_count = sizes[images][0], sizes[labels][0]
        if pictures != label_count:
            fault = f"{files[images].path.name} has {pictures} pictures, and there are {label_count} labels"
            raise DataError(fault, str(files[labels].path), files[labels].remedy)
    side, test_side = sizes[0][1:], sizes[2][1:]
    if side != test_side:
        fault = (
            f"training pictures of {side[0]}×{side[1]} pixels, test pictures of {test_side[0]}×{test_side[1]}"
        )
        raise DataError(fault, str(files[2].path), files[2].remedy)
    if min(side) < SMALLEST_SIDE:
        fault = f"pictures of {side[0]}×{side[1]} pixels, smaller than {SMALLEST_SIDE}×{SMALLEST_SIDE}"
        raise DataError(fault, str(files[0].path), files[0].remedy)


def _stamp(file: _File) -> dict[str, int | str]:
    source = Source(file.path.name, (), "", file.content, 0)
    return stamp(source, file.path.parent)


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
    unshared = sorted(set(train_labels.tolist()) ^ set(test_labels.tolist()))
    if unshared:
        what = f"label {unshared[0]} occurs in training alone or in test alone"
        raise DataError(what, str(files[3].path), files[3].remedy)
    arrays: dict[str, np.ndarray] = {}
    for name, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        order = np.argsort(labels, kind="stable")
        arrays |= {f"{name}_images": images[order], f"{name}_labels": labels[order]}
    return cache.Entry(arrays, {})


def _count_axes(source: Source) -> int:
    return IMAGE_AXES if "idx3" in source.file else LABEL_AXES


def _digest(header: bytes, values: bytes = b"") -> str:
    digest = hashlib.sha256(header)
    digest.update(values)
    return digest.hexdigest()
