"""How many inner steps each of some runs needs: their adaptation curves side by side, on the same frozen episodes."""

from pathlib import Path
from typing import Any, NamedTuple

from metarun import errors
from metarun.evaluation.statistics import Interval, choose_shown_metric
from metarun.finished.finished_run import read_result
from metarun.finished.run_names import name_runs


class Curve(NamedTuple):
    """The last stage of a run, measured after some numbers of inner steps."""

    label: str  # run and stage
    # {inner steps: the metric}; a learner without inner steps has one point, at 0.
    points: dict[int, Interval]


class Curves(NamedTuple):
    """The curves of some runs."""

    metric: str
    higher_is_better: bool
    curves: list[Curve]


def read_curves(paths: list[Path], metric: str | None) -> Curves:
    """Read the adaptation curve of each run's last stage, in the run's first mode.

    Args:
      metric: None: the first one but the loss, or the loss if there is no other.

    Raises:
      UsageError: a run has not measured the metric, or other episodes than the first.
      CheckpointError, DataError: a path is no run, or its run is not finished or damaged.
    """
    results = [read_result(path) for path in paths]
    hashes = [result["episodes"]["hash"] for result in results]
    if len(set(hashes)) > 1:
        raise errors.UsageError(
            f"these runs were measured on different episodes: {', '.join(hashes)}",
            "metarun compare --steps-curve",
            "compare runs whose task and evaluation sections ask for the same episodes",
        )
    metric = metric or choose_shown_metric(get_last_section(results[0])["adapted"])
    curves = [
        read_curve(label, path, result, metric)
        for label, path, result in zip(name_runs(paths), paths, results, strict=True)
    ]
    return Curves(metric, metric in results[0]["higher_is_better"], curves)


def get_last_section(result: dict[str, Any]) -> dict[str, Any]:
    """Return the layout of the last stage, in the first mode."""
    section: dict[str, Any] = list(result["stages"].values())[-1][result["modes"][0]]
    return section


def read_curve(label: str, path: Path, result: dict[str, Any], metric: str) -> Curve:
    """Return the curve of one result."""
    section = get_last_section(result)
    measured = section.get("inner_steps") or {"0": section["adapted"]}
    if any(metric not in values for values in measured.values()):
        known = ", ".join(section["adapted"])
        raise errors.UsageError(f"not all runs have measured {metric}", str(path), f"choose one of {known}")
    points = {
        int(steps): Interval(values[metric]["mean"], values[metric]["ci95"])
        for steps, values in measured.items()
    }
    return Curve(f"{label} ({list(result['stages'])[-1]})", dict(sorted(points.items())))


def count_needed_steps(curve: Curve, level: float, higher_is_better: bool) -> int | None:
    """Return the fewest inner steps after which the curve is at least as good as `level`; None: it never is."""
    sign = 1 if higher_is_better else -1
    return next((steps for steps, value in curve.points.items() if sign * value.mean >= sign * level), None)


def describe(curves: Curves) -> dict[str, Any]:
    """Return the curves, ready for JSON.

    Returns:
      {"metric", "higher_is_better", "curves": [{"label", "points": [{"inner_steps", "mean", "ci95"}]}]}. Each point of
      the first curve also has "as_good", {label of another curve: the fewest inner steps after which that one is at
      least as good, or None}.
    """
    first, *others = curves.curves
    points = [
        point | ({"as_good": compare_steps(others, point["mean"], curves.higher_is_better)} if others else {})
        for point in list_points(first)
    ]
    sections = [{"label": first.label, "points": points}]
    sections += [{"label": other.label, "points": list_points(other)} for other in others]
    return {"metric": curves.metric, "higher_is_better": curves.higher_is_better, "curves": sections}


def list_points(curve: Curve) -> list[dict[str, Any]]:
    """Return the points of a curve, ready for JSON."""
    return [{"inner_steps": steps, **value._asdict()} for steps, value in curve.points.items()]


def compare_steps(curves: list[Curve], level: float, higher_is_better: bool) -> dict[str, int | None]:
    """Return {label: the fewest inner steps after which the curve is at least as good as `level`, or None}."""
    return {curve.label: count_needed_steps(curve, level, higher_is_better) for curve in curves}
