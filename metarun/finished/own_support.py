"""Somebody's own support and queries, read from files as the task family's form says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun import base
from metarun.data import examples
from metarun.errors import DataError, UsageError
from metarun.finished.prediction import TrainedRun
from metarun.plain_text import escape


class OwnSupport(NamedTuple):
    """A support that somebody gives."""

    examples: base.Examples
    classes: tuple[str, ...] = ()  # their names, by label; empty if no classes are predicted
    columns: tuple[str, ...] = ()  # the header of a table, if it has one


def read_support(run: TrainedRun, path: Path) -> OwnSupport:
    """Read class folders of pictures, a CSV file of inputs and targets, or a TSV file of pairs of sentences.

    Raises:
      DataError: what is wrong with the files.
      ConfigError: the learner cannot take as many classes or examples.
    """
    if isinstance(run.form, base.Pictures):
        return read_pictures(run, run.form, path)
    if isinstance(run.form, base.Sentences):
        pairs = examples.read_pairs(path)
        sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
        return OwnSupport(encode(run.form, sources, targets, str(path)))
    return read_table(run, path)


def read_pictures(run: TrainedRun, form: base.Pictures, path: Path) -> OwnSupport:
    """Read class folders of pictures. The number of classes is checked before a picture is read."""
    if run.targets != "classes" or len(run.spec.input_shape) != 3:
        what = f"the run predicts {run.targets} from inputs {run.spec.input_shape}"
        raise UsageError(what, str(run.path), "use metarun.load(run) from Python")
    classes = examples.list_classes(path)
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files) for files in classes.values()])
    shape: Any = run.spec.input_shape
    run.check_shapes(len(labels), labels, len(classes))
    files = [file for files in classes.values() for file in files]
    return OwnSupport(
        base.Examples(examples.read_pictures(files, shape, form.inverted), labels), tuple(classes)
    )


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


def encode(form: base.Sentences, sources: Sequence[str], targets: Sequence[str], where: str) -> base.Examples:
    """Return sentences as examples.

    Raises:
      DataError: the family refuses one of them.
    """
    try:
        return form.encode(list(sources), list(targets))
    except ValueError as error:
        what, *remedy = map(str, error.args)
        raise DataError(what, where, *(remedy or ["change the sentence"])) from error
