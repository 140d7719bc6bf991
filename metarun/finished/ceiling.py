"""What the best possible rule reaches on the episodes of a finished run, computed once and kept beside the result.

Only some task families can compute it: those whose `Config` has a true `has_ceiling`. It never stands in the way: a run
whose config or data cannot be read any more has none.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarun import errors
from metarun.evaluation.statistics import estimate_mean
from metarun.finished.finished_run import FinishedRun, find_run
from metarun.runs import files, regular_files, task_file

if TYPE_CHECKING:
    from metarun.finished.opened_run import OpenedRun

FILE = "ceiling.json"
VERSION = 1  # of the rules: files of another one are computed again

Columns = dict[str, np.ndarray]  # {metric: [episode]}


def find_values(path: Path, result: dict[str, Any]) -> Columns | None:
    """Return {metric: [episode]} of the best possible rule on the episodes of a result; None: it is not known.

    Args:
      path: of the run. The values are kept in its ceiling.json, unless the disk refuses.
      result: the content of its result.json.
    """
    kept = read(path / FILE, result)
    if kept is not None:
        return kept
    try:
        run = find_run(path)
        if not getattr(run.config.task.config, "has_ceiling", False):
            return None
        columns = compute(run, result)
    except errors.MetarunError:
        return None
    if columns is not None:
        with contextlib.suppress(errors.StorageError):
            values = {name: column.tolist() for name, column in columns.items()}
            files.write_sealed(path / FILE, identify(result) | {"metrics": values})
    return columns


def identify(result: dict[str, Any]) -> dict[str, Any]:
    """Return what tells which episodes a ceiling is of."""
    return {"version": VERSION, "split": result["split"], **result["episodes"]}


def read(file: Path, result: dict[str, Any]) -> Columns | None:
    """Return the values that are kept, if they are of these episodes, and are what was written."""
    try:
        kept = regular_files.read_sealed(file)
        metrics = kept.pop("metrics")
        if kept != identify(result):
            return None
        columns = {name: np.array([float(value) for value in values]) for name, values in metrics.items()}
        whole = all(len(column) == result["episodes"]["count"] for column in columns.values())
        return columns if columns and whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def compute(run: FinishedRun, result: dict[str, Any]) -> Columns | None:
    """Compute the ceiling on the episodes of a result; None: the config gives other episodes, or there is none."""
    from metarun import assembly, hardware
    from metarun.evaluation import episodes, optimum

    device = hardware.select(run.config.accelerator)[0]
    tasks = assembly.build_tasks(run.config, device, task_file.read(run.path))
    frozen = episodes.freeze(tasks, run.config.evaluation)
    if episodes.hash_episodes(frozen, tasks.recipe) != result["episodes"]["hash"]:
        return None
    return optimum.measure(frozen)


def measure(opened: "OpenedRun", result: dict[str, Any]) -> dict[str, Any] | None:
    """Return {metric: {"mean", "ci95"}} of the best possible rule on the episodes of an evaluation. Writes nothing.

    Args:
      result: of this evaluation, whose settings may differ from those of the run's own result.
    """
    from metarun.evaluation import episodes, optimum

    kept = read(opened.run.path / FILE, result)
    if kept is None:
        kept = optimum.measure(episodes.freeze(opened.tasks, opened.run.config.evaluation))
    return summarise(kept)


def describe(path: Path, result: dict[str, Any]) -> dict[str, Any] | None:
    """Return {metric: {"mean", "ci95"}} of the best possible rule, over the episodes; None: it is not known."""
    return summarise(find_values(path, result))


def summarise(columns: Columns | None) -> dict[str, Any] | None:
    """Return {metric: {"mean", "ci95"}} over the episodes."""
    if columns is None:
        return None
    return {name: estimate_mean(column)._asdict() for name, column in columns.items()}
