"""Two baselines that learn nothing beforehand, on the frozen episodes of a run with pictures: kept beside its result.

    logistic regression on pixels               the inputs of the run themselves
    logistic regression on a random network     the features of a four-block network with random weights

A learner that is not above them has gained nothing from its training. `baseline_fits` computes them.
"""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from metarun import errors
from metarun.runs import files, regular_files

FILE = "baselines.json"
VERSION = 1  # of the rules: files of another one are computed again

Columns = dict[str, dict[str, np.ndarray]]  # {baseline: {metric: [episode]}}


def find_values(
    path: Path, result: dict[str, Any], compute_missing: bool, weights: Path | None = None
) -> Columns | None:
    """Return {baseline: {metric: [episode]}} on the episodes of a result; None: there is none, or none is kept.

    Args:
      path: of the run. The values are kept in its baselines.json, unless the disk refuses.
      result: the content of its result.json.
      compute_missing: compute what is not kept.
      weights: where the file of weights of a run on features lies now; None: where its config says.

    Raises:
      UsageError: the run classifies no pictures, or its data give other episodes now.
      MetarunError: the run or its data cannot be read.
    """
    kept = read(path / FILE, result)
    if kept is not None or not compute_missing:
        return kept
    from metarun.finished import baseline_fits  # imports jax

    columns = baseline_fits.compute(path, result, weights)
    with contextlib.suppress(errors.StorageError):
        write(path, result, columns)
    return columns


def write(path: Path, result: dict[str, Any], columns: Columns | None) -> None:
    """Write the values on the episodes of a result into baselines.json of its run, if there are any."""
    if columns is not None:
        values = {
            name: {metric: column.tolist() for metric, column in metrics.items()}
            for name, metrics in columns.items()
        }
        files.write_sealed(path / FILE, identify(result) | {"baselines": values})


def identify(result: dict[str, Any]) -> dict[str, Any]:
    """Return what tells which episodes the baselines are of."""
    return {"version": VERSION, "split": result["split"], **result["episodes"]}


def read(file: Path, result: dict[str, Any]) -> Columns | None:
    """Return the values that are kept, if they are of these episodes."""
    try:
        kept = regular_files.read_sealed(file)
        baselines = kept.pop("baselines")
        if kept != identify(result):
            return None
        columns = {
            name: {metric: np.array([float(value) for value in values]) for metric, values in metrics.items()}
            for name, metrics in baselines.items()
        }
        lengths = {len(column) for metrics in columns.values() for column in metrics.values()}
        return columns if lengths == {result["episodes"]["count"]} else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
