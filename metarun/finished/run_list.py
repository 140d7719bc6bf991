"""The runs below a folder: those that meet some conditions, in some order, with the keys in which they differ."""

import datetime
import fnmatch
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarun import errors
from metarun.finished import run_names
from metarun.finished.listed_run import FOREIGN, ListedRun, read_line
from metarun.runs import catalogue


def list_runs(root: Path, conditions: list[str], sort: str | None) -> list[ListedRun]:
    """List the runs and the foreign folders below a folder, the last written first.

    Args:
      conditions: `key=value` that a run must meet; see `meets`.
      sort: a metric, the best first; or name, status, step or age; or a key of the config. None: age.

    Raises:
      CheckpointError: there is no such folder.
      UsageError: a condition is no `key=value`, or no run has what is sorted by.
    """
    if not root.is_dir():
        remedy = "give the folder of your runs; `metarun train` makes runs/"
        raise errors.CheckpointError("there is no such folder", str(root), remedy)
    tests = [parse_condition(condition) for condition in conditions]
    now = datetime.datetime.now(datetime.UTC)
    runs = [read_line(folder, root, now) for folder in catalogue.list_folders(root)]
    runs = [run for run in runs if all(meets(run, *condition) for condition in tests)]
    return sort_runs(add_differences(runs), sort)


def parse_condition(text: str) -> tuple[str, str]:
    """Return (key, pattern) of `key=pattern`."""
    key, sign, pattern = text.partition("=")
    if not (key and sign):
        raise errors.UsageError(
            f"{text} is no condition", "--where", "write key=value, as algorithm.name=maml"
        )
    return key, pattern


def list_values(run: ListedRun, key: str) -> list[Any]:
    """Return what a run has under a key: of the list itself, of the config, or of any of its stages."""
    own = {"name": run.name, "status": run.status.state, "stage": run.status.stage}
    if key in own:
        return [own[key]]
    return [value for name, value in run.config.items() if name == key or is_of_stage(name, key)]


def is_of_stage(name: str, key: str) -> bool:
    """Return whether a dotted name is that of the key in some stage."""
    words = name.split(".", 2)
    return len(words) == 3 and words[0] == "stages" and words[2] == key


def meets(run: ListedRun, key: str, pattern: str) -> bool:
    """Return whether a run, or one of its stages, has a value that matches."""
    return any(matches(run_names.format_value(value), pattern) for value in list_values(run, key))


def matches(text: str, pattern: str) -> bool:
    """Return whether a value is the same number as the pattern, or matches its `*` and `?`."""
    if fnmatch.fnmatchcase(text, pattern):
        return True
    try:
        return float(text) == float(pattern)
    except ValueError:
        return False


def add_differences(runs: list[ListedRun]) -> list[ListedRun]:
    """Add to each run the keys in which the runs of the same task, models and algorithms differ."""
    groups: dict[tuple, list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        if run.config:
            kinds = sorted((key, str(value)) for key, value in run.config.items() if is_kind(key))
            groups[tuple(kinds)].append(place)
    added = list(runs)
    for places in groups.values():
        differences = run_names.list_differences([runs[place].config for place in places])
        for place, difference in zip(places, differences, strict=True):
            added[place] = runs[place]._replace(differences=difference)
    return added


def is_kind(key: str) -> bool:
    """Return whether a key says of which kind a run is: which plug-ins it uses."""
    words = key.split(".")
    return words[-1] == "name" and words[-2:-1] in (["task"], ["model"], ["algorithm"])


def sort_runs(runs: list[ListedRun], sort: str | None) -> list[ListedRun]:
    """Return the runs in order; those that have not what is sorted by come last."""
    sort = sort or "age"
    keys: dict[str, Callable[[ListedRun], Any]] = {
        "age": lambda run: run.age,
        "name": lambda run: run.name,
        "status": lambda run: run.status.state,
        "step": lambda run: None if run.status.step is None else -run.status.step,
    }
    key = keys.get(sort) or make_key(runs, sort)
    present = [run for run in runs if run.status.state != FOREIGN and key(run) is not None]
    absent = [run for run in runs if run.status.state == FOREIGN or key(run) is None]
    return sorted(present, key=key) + absent


def make_key(runs: list[ListedRun], sort: str) -> Callable[[ListedRun], Any]:
    """Return what sorts by a metric, the best first, or by a key of the config.

    Raises:
      UsageError: no run has it.
    """
    if any(sort in run.result for run in runs):
        return lambda run: rank(run, sort)
    if runs and not any(list_values(run, sort) for run in runs):
        metrics = dict.fromkeys(metric for run in runs for metric in run.result)
        known = ", ".join([*metrics, "name", "status", "step", "age"])
        raise errors.UsageError(
            f"no run has {sort}", "--sort", f"sort by one of {known}, or a key of the config"
        )
    return lambda run: rank_value(list_values(run, sort))


def rank(run: ListedRun, metric: str) -> tuple[bool, float] | None:
    """Return what sorts a run by a metric; one that is not finite comes after those that are."""
    if metric not in run.result:
        return None
    mean = run.result[metric]["mean"]
    if not math.isfinite(mean):
        return True, 0.0
    return False, -mean if metric in run.higher_is_better else mean


def rank_value(values: list[Any]) -> tuple[bool, float, str] | None:
    """Return what sorts values of a config: numbers by their size, then the others as text."""
    if not values:
        return None
    is_number = isinstance(values[0], int | float)
    return not is_number, float(values[0]) if is_number else 0.0, str(values[0])
