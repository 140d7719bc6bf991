"""The pictures and the features of a trained run: its network gives features, as a backbone does.

Pictures are read as the run reads them, and kept as its inputs in the same cache as the features of a backbone, so that
a second call decodes nothing. In inductive mode the batch statistics are those of the support, or of REFERENCES of it;
they use no label.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarun import features
from metarun.errors import DataError
from metarun.features import picture_features
from metarun.finished import own_pictures
from metarun.finished.prediction import TrainedRun, take_batch

REFERENCES = 256  # pictures of the support whose batch statistics normalise, spread evenly
AT_ONCE = 256  # pictures that the network takes at once


class Reading(NamedTuple):
    """How a run reads a picture, in the place of a `Preparation`."""

    reader: own_pictures.PictureReader

    def digest(self) -> str:
        """Return a hash of all that decides the values, 64 hexadecimal digits."""
        form = self.reader.form
        return hashlib.sha256(repr((form.prepared, form.inverted, self.reader.shape)).encode()).hexdigest()

    def read(self, path: Path) -> np.ndarray:
        """Return a picture as an input of the run, float32 [height, width, channel]."""
        return self.reader.read_as_they_are([path])[0]


class Pixels(NamedTuple):
    """The input of a run in place of features; see `features.Extractor`."""

    preparation: Reading

    @property
    def digest(self) -> str:
        """64 hexadecimal digits."""
        return hashlib.sha256(b"pixels").hexdigest()

    @property
    def features(self) -> int:
        """The numbers of a picture."""
        return math.prod(self.preparation.reader.shape)

    def extract(self, pictures: np.ndarray) -> np.ndarray:
        """Return float32 [example, feature]."""
        return pictures.reshape(len(pictures), -1)


class RunPictures(NamedTuple):
    """Pictures as inputs of a run."""

    files: tuple[Path, ...]
    inputs: Float[np.ndarray, "example *input"]
    skipped: list[tuple[Path, str]]
    digests: tuple[str, ...]  # [example], of the bytes of each file


def read_pictures(reader: own_pictures.PictureReader, files: Sequence[Path]) -> RunPictures:
    """Read those of the files that can be read, as a run reads them, whatever their ground is."""
    if len(reader.shape) == 3:
        table = features.extract(files, Pixels(Reading(reader)))
        inputs = np.asarray(table.features).reshape(-1, *reader.shape)
        return RunPictures(table.files, inputs, table.skipped, table.digests)
    hashed = picture_features.hash_files(files)  # the run sees features, which it keeps itself
    digests = {file: digest.hex() for file, digest, fault in hashed if not fault}
    skipped = [(file, fault) for file, _, fault in hashed if fault]
    readable, inputs, others = read_halves(reader, list(digests))
    return RunPictures(
        tuple(readable), inputs, [*skipped, *others], tuple(digests[file] for file in readable)
    )


def read_halves(
    reader: own_pictures.PictureReader, files: Sequence[Path]
) -> tuple[list[Path], np.ndarray, list[tuple[Path, str]]]:
    """Read files at once, and in two halves where one cannot be read.

    Returns:
      Those that can be read, their inputs, and the others, each with its fault.
    """
    empty = np.zeros((0, *reader.shape), np.float32)
    try:
        return list(files), reader.read_as_they_are(files) if files else empty, []
    except DataError as error:
        if error.where not in map(str, files):  # it is not about a picture, but about the network
            raise
        if len(files) == 1:
            return [], empty, [(files[0], error.what)]
    middle = len(files) // 2
    first, second = read_halves(reader, files[:middle]), read_halves(reader, files[middle:])
    return first[0] + second[0], np.concatenate([first[1], second[1]]), first[2] + second[2]


def embed(run: TrainedRun, inputs: np.ndarray, support: np.ndarray) -> Float[np.ndarray, "example feature"]:
    """Return the features of pictures; those of a run without a body are the inputs themselves.

    Args:
      support: the inputs of the whole support.
    """
    if run.embed is None:
        return inputs.reshape(len(inputs), -1)
    places = np.unique(np.linspace(0, len(support) - 1, REFERENCES).astype(int))
    batches = [
        np.asarray(run.embed(take_batch(inputs, start, AT_ONCE), support[places]))
        for start in range(0, len(inputs), AT_ONCE)
    ]
    return np.concatenate(batches)[: len(inputs)].astype(np.float32)
