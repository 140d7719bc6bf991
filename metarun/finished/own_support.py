"""Somebody's own support and queries, read from files as the task family's form says."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun import base
from metarun.data import examples
from metarun.errors import DataError, UsageError
from metarun.finished.prediction import TrainedRun
from metarun.plain_text import escape

logger = logging.getLogger("metarun")


class OwnSupport(NamedTuple):
    """A support that somebody gives."""

    examples: base.Examples
    classes: tuple[str, ...] = ()  # their names, by label; empty if no classes are predicted
    columns: tuple[str, ...] = ()  # the header of a table, if it has one
    inverted: bool = False  # whether pictures are read the other way round than the run reads files
    files: tuple[Path, ...] = ()  # of pictures


def read_support(run: TrainedRun, path: Path, polarity: str = "auto") -> OwnSupport:
    """Read class folders of pictures, a CSV file of inputs and targets, or a TSV file of pairs of sentences.

    Args:
      polarity: of pictures; see `own_pictures`.

    Raises:
      DataError: what is wrong with the files.
      ConfigError: the learner cannot take as many classes or examples.
    """
    if isinstance(run.form, base.Pictures):
        return read_pictures(run, path, polarity)
    if isinstance(run.form, base.Sentences):
        pairs = leave_out_long(run.form, examples.read_pairs(path), path)
        sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
        return OwnSupport(encode(run.form, sources, targets, str(path)))
    return read_table(run, path)


def read_pictures(run: TrainedRun, path: Path, polarity: str) -> OwnSupport:
    """Read class folders of pictures. The number of classes is checked before a picture is read."""
    if run.targets != "classes":
        what = f"the run predicts {run.targets} from inputs {run.spec.input_shape}"
        raise UsageError(what, str(run.path), "use metarun.load(run) from Python")
    reader, classes = run.pictures, examples.list_classes(path)
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files) for files in classes.values()])
    run.check_shapes(len(labels), labels, len(classes))
    files = tuple(file for files in classes.values() for file in files)
    own = reader.read(files, polarity)
    return OwnSupport(base.Examples(own.inputs, labels), tuple(classes), (), own.inverted, files)


def read_table(run: TrainedRun, path: Path) -> OwnSupport:
    """Read a CSV file of inputs, and of classes or of numbers as targets."""
    columns, labelled = int(np.prod(run.spec.input_shape)), run.targets == "classes"
    table = examples.read_table(path, columns + (0 if labelled else run.spec.output_size), labelled)
    inputs = table.numbers[:, :columns].reshape(-1, *run.spec.input_shape)
    if not labelled:
        return OwnSupport(base.Examples(inputs, table.numbers[:, columns:]), columns=table.names)
    names = sorted(set(table.labels))
    if len(names) < 2:
        what = f"the support has only one class, {escape(names[0])}"
        raise DataError(what, str(path), "give examples of two classes or more")
    targets = np.array([names.index(label) for label in table.labels], np.int32)
    return OwnSupport(base.Examples(inputs, targets), tuple(names), table.names)


def leave_out_long(form: base.Sentences, pairs: list[tuple[str, str]], path: Path) -> list[tuple[str, str]]:
    """Return the pairs whose sentences are both short enough, with a warning about the others; all, if none is.

    Unlike a query, a pair cannot be divided: its two sides cannot be cut at the same place.
    """
    divide = form.divide
    if divide is None:
        return pairs
    short = name_place(str(path), lambda: [all(len(divide(side)) == 1 for side in pair) for pair in pairs])
    if all(short) or not any(short):
        return pairs
    long = [pair[0] for pair, fits in zip(pairs, short, strict=True) if not fits]
    logger.warning(
        "%s: %d of %d pairs are too long and are left out: %s", path, len(long), len(pairs), escape(long[0])
    )
    return [pair for pair, fits in zip(pairs, short, strict=True) if fits]


def encode(form: base.Sentences, sources: Sequence[str], targets: Sequence[str], where: str) -> base.Examples:
    """Return sentences as examples.

    Raises:
      DataError: the family refuses one of them.
    """
    return name_place(where, lambda: form.encode(list(sources), list(targets)))


def name_place(where: str, read: Callable[[], Any]) -> Any:
    """Return what `read` gives. What it says of a sentence, as ValueError(what, remedy), is about this place.

    Raises:
      DataError: the family refuses a sentence.
    """
    try:
        return read()
    except ValueError as error:
        what, *remedy = map(str, error.args)
        raise DataError(what, where, *(remedy or ["change the sentence"])) from error
