"""All pictures of a call as arrays: their features on one scale, and the inputs of the run if there is one."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarun import features
from metarun.errors import DataError, DivergedError
from metarun.fewshot import run_features, scaling
from metarun.fewshot.feature_source import Source
from metarun.fewshot.gathering import Gathered
from metarun.finished import own_pictures

logger = logging.getLogger("metarun")


class Pictures(NamedTuple):
    """The pictures that can be read: those of the support first, then the queries."""

    files: tuple[Path, ...]
    rows: Float[np.ndarray, "example feature"]  # features as the network gives them
    features: Float[np.ndarray, "example feature"]  # on one scale; see `scaling`
    inputs: np.ndarray | None  # of the run that gives the features; None: a backbone gives them
    labelled: int  # how many belong to the support
    skipped: list[tuple[Path, str]]  # files that cannot be read, each with its fault
    digests: tuple[str, ...]  # of the bytes of each file
    inverted: bool = False  # whether the run reads them the other way round; see `own_pictures`


def read(gathered: Gathered, source: Source, polarity: str) -> Pictures:
    """Read pictures and compute their features, as far as the cache does not have them.

    Raises:
      DataError: no picture can be read.
      DivergedError: the network gives numbers that are not finite.
      StorageError: the cache may not be written.
    """
    files = (*gathered.labels, *gathered.queries)
    pictures = read_with_run(gathered, source, files, polarity) if source.run else read_rows(files, source)
    if not pictures.files:
        what = "none of the pictures can be read" if files else "there are no pictures"
        where = f"{files[0]}: {pictures.skipped[0][1]}" if files else "--support and --query"
        raise DataError(what, where, "give folders with pictures that can be opened")
    if not np.isfinite(pictures.rows).all():
        what = "the network gives features that are not finite"
        raise DivergedError(what, source.label, "take other weights, or another run")
    labelled = sum(file in gathered.labels for file in pictures.files)
    return pictures._replace(features=scaling.scale(pictures.rows, labelled), labelled=labelled)


def read_rows(files: tuple[Path, ...], source: Source) -> Pictures:
    """Take the features of a backbone from the cache."""
    assert source.backbone is not None  # it has no run
    table = features.extract(files, source.backbone)
    rows = np.asarray(table.features)
    return Pictures(table.files, rows, rows, None, 0, table.skipped, table.digests)


def read_with_run(gathered: Gathered, source: Source, files: tuple[Path, ...], polarity: str) -> Pictures:
    """Read pictures as a run does, and compute the features of its network."""
    assert source.run is not None
    own_pictures.refuse_other_polarity(polarity)
    reader, inverted = source.run.pictures, polarity == "invert"
    read = run_features.read_pictures(reader, files)
    labelled = sum(file in gathered.labels for file in read.files)
    support = read.inputs[:labelled] if labelled else read.inputs
    if polarity == "auto" and reader.has_other_ground(support):
        own_pictures.warn_of_ground(reader.find_file_ground(support), "support" if labelled else "queries")
        inverted = True
    inputs = reader.turn(read.inputs) if inverted else read.inputs
    rows = run_features.embed(source.run, inputs, inputs[: len(support)]) if len(inputs) else inputs
    return Pictures(read.files, rows, rows, inputs, labelled, read.skipped, read.digests, inverted)
