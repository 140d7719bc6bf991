"""The settings of a sweep from best to worst, with intervals of the differences by pairs.

The value of a setting is its mean over seeds and episodes. Its interval is over both (`evaluation.statistics`), and so
is that of the difference to the best, which is taken on the same seeds and the same episodes. With several seeds there
are two more beside each: over the episodes alone, and over the seeds alone. One seed says nothing about the noise of
training.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metarun.config.schema import LAST_STEP
from metarun.evaluation.statistics import estimate_mean, summarise_column
from metarun.sweeps import importances
from metarun.sweeps.course import Climbed, Course
from metarun.sweeps.request import Request
from metarun.sweeps.scores import SPLIT, Measure
from metarun.sweeps.sweep_directory import SweepDirectory


def rank(sweep: SweepDirectory, request: Request, course: Course) -> dict[str, Any]:
    """Return the ranking of a sweep that has ended, ready for JSON.

    Returns:
      {"metric", "higher_is_better", "mode", "stage", "split", "episodes", "keys", "seeds", "search", "halve",
      "ranking": [{"number", "setting", "state", "steps", "mean", "ci95", "seeds", "behind", "rungs", "places"}],
      "importance": {"method", "steps", "shares"}}. `state` is done, stopped (a rung took it out) or diverged; `number`
      counts from 1 in the order in which the settings were proposed; `behind` is the difference to the best setting.
    """
    measure = course.measure
    ordered = order(course.settings, measure)
    last = request.base.stages[-1].training.last_step
    best = ordered[0] if ordered and find_state(ordered[0]) == "done" else None
    numbers = {id(entry): number for number, entry in enumerate(course.settings, start=1)}
    head = {} if measure is None else measure._asdict()
    return {
        **head,
        "split": SPLIT,
        "keys": [axis.key for axis in request.axes],
        "seeds": list(request.seeds),
        "search": request.search,
        "halve": request.halve,
        "ranking": [describe(sweep, entry, numbers[id(entry)], best, last) for entry in ordered],
        "importance": importances.measure(request, course.settings, last),
    }


def find_state(entry: Climbed) -> str:
    """Return done, stopped or diverged."""
    if entry.scores[-1].diverged:
        return "diverged"
    return "done" if entry.divisor == 1 else "stopped"


def order(settings: Sequence[Climbed], measure: Measure | None) -> list[Climbed]:
    """Return the settings from best to worst: first those with all steps, and last those that diverged."""
    sign = -1 if measure is not None and measure.higher_is_better else 1

    def place(entry: Climbed) -> tuple[bool, int, float]:
        diverged = find_state(entry) == "diverged"
        return (diverged, entry.divisor, 0.0 if diverged else sign * entry.scores[-1].mean)

    return sorted(settings, key=place)


def describe(
    sweep: SweepDirectory, entry: Climbed, number: int, best: Climbed | None, last: int
) -> dict[str, Any]:
    """Return a line of the ranking."""
    score = entry.scores[-1]
    line: dict[str, Any] = {
        "number": number,
        "setting": entry.setting,
        "state": find_state(entry),
        "steps": None if last == LAST_STEP else -(-last // entry.divisor),  # None: another budget ends them
        "mean": None,
        "ci95": None,
        "behind": None,
    }
    if score.values is not None:
        line |= summarise(score.values)
    if best is not None and entry is not best and line["state"] == "done":
        assert score.values is not None and best.scores[-1].values is not None  # the state says so
        line["behind"] = summarise(score.values - best.scores[-1].values)
    if score.diverged:
        line["diverged_seeds"] = score.diverged
    line["rungs"] = [None if rung.diverged else rung.mean for rung in entry.scores]
    line["places"] = [
        {"run": str(sweep.find_run(program).relative_to(sweep.path)), "replica": replica}
        for program, replica in score.places
    ]
    return line


def summarise(values: np.ndarray) -> dict[str, Any]:
    """Return the mean of values [seed, episode] and its interval: over both, or over episodes if there is one seed."""
    return summarise_column(values) if len(values) > 1 else estimate_mean(values[0])._asdict()
