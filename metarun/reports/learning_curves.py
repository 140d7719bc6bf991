"""metrics.jsonl and result.json as charts: curves over outer steps, over inner steps, and groups of tasks."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from metarun.evaluation.statistics import choose_shown_metric
from metarun.reports.charts import Curves, Dot, Dots, Line, choose_color, to_number
from metarun.reports.run_record import RunRecord
from metarun.runs.metric_rows import make_rows, tabulate

POINTS = 300  # of a training curve: more could not be told apart
PANELS = 12  # metrics of a stage that are drawn; the others are in metrics.jsonl
# The keys of a line of metrics.jsonl that are no metrics.
HEAD = ("stage", "replica", "member", "split", "step", "seconds", "mode")

Rows = Sequence[Mapping[str, Any]]


class Learners(NamedTuple):
    """A metric of all learners of a stage."""

    steps: Float[np.ndarray, "point"]
    values: Float[np.ndarray, "learner point"]


def make_charts(record: RunRecord, stage: str) -> list[Curves]:
    """Return a chart for each metric of a stage: training, and validation before and after adaptation."""
    rows = record.rows.where(stage=stage)
    splits = {split: rows.where(split=split) for split in ("train", "validation")}
    charts = []
    validated, trained = choose_metrics(splits["validation"]), choose_metrics(splits["train"])
    for metric in list(dict.fromkeys([*validated, *trained]))[:PANELS]:
        lines = [
            make_line("training", smooth(*collect_learners(splits["train"], metric)), color=1),
            make_validation_line(splits["validation"], metric),
            make_line(
                "validation, unadapted",
                collect_learners(splits["validation"], f"unadapted_{metric}"),
                color=2,
                dashed=True,
            ),
        ]
        seen = [line for line in lines if np.isfinite(line.means).any()]
        if any(len(line.places) > 1 for line in seen):  # one point is no curve
            charts.append(Curves(metric, "outer step", metric, seen))
    return [*charts, *make_rate_chart(rows)]


def make_rate_chart(rows: Rows) -> list[Curves]:
    """Return the chart of the learning rate, if the lines about the speed have one that changes."""
    speeds = make_rows(rows).where(split="speed")
    line = make_line("learning rate", collect_learners(speeds, "learning_rate"))
    varies = len(set(line.means.tolist())) > 1
    chart = Curves("learning rate", "outer step", "learning rate", [line], may_be_logarithmic=False)
    return [chart] if varies else []


def choose_metrics(rows: Rows) -> list[str]:
    """Return the metrics in these lines, the one to show first."""
    keys = dict.fromkeys(key for row in (*rows[:1], *rows[-1:]) for key in row)
    names = [
        key
        for key in keys
        if key not in HEAD and not key.endswith("_ci95") and not key.startswith("unadapted_")
    ]
    shown = choose_shown_metric([name for name in names if name != "gradient_norm"])
    return sorted(names, key=lambda name: (name != shown, name != "loss", name))


def make_line(label: str, measured: Learners, color: int = 0, dashed: bool = False) -> Line:
    """Return the mean of the learners (replicas and members) at each step, with the band from lowest to highest."""
    steps, values = measured
    means, low, high = summarise_learners(values)
    return Line(label, steps, means, low, high, color, dashed)


def make_validation_line(rows: Rows, metric: str, label: str = "validation, adapted", color: int = 0) -> Line:
    """Return the line of the learners after adaptation. A single learner has its 95 % interval as band."""
    steps, values = collect_learners(rows, metric)
    half = collect_learners(rows, f"{metric}_ci95").values
    if len(values) == 1 and half.shape == values.shape:
        return Line(label, steps, values[0], values[0] - half[0], values[0] + half[0], color)
    return make_line(label, Learners(steps, values), color)


def collect_learners(rows: Rows, metric: str) -> Learners:
    """Return what every learner had at each step that has the metric; NaN where one has nothing finite."""
    steps, values = tabulate(make_rows(rows), metric)
    return Learners(steps.astype(np.float64), values)


def summarise_learners(
    values: Float[np.ndarray, "learner point"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, lowest and highest at each point. A point that some learner has not is a gap in the mean."""
    if not len(values):
        empty = np.zeros(values.shape[1])
        return empty, empty, empty
    return values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def smooth(steps: Float[np.ndarray, "point"], values: Float[np.ndarray, "learner point"]) -> Learners:
    """Return the learners as at most POINTS means of equal parts. Only the last part has another width.

    It is at least half, and less than one and a half times as wide as the others.
    """
    count = len(steps)
    width = max(1, -(-count // POINTS))
    starts = [start for start in range(0, count, width) if not start or count - start > width // 2]
    places = np.array([part.mean() for part in np.split(steps, starts[1:])] if count else [])
    parts = np.split(values, starts[1:], axis=1) if count else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a part without any finite value is a gap
        means = [np.nanmean(part, axis=1) for part in parts]
    return Learners(places, np.array(means).reshape(len(parts), len(values)).T)


def make_steps_chart(sections: dict[str, dict[str, Any]]) -> Curves | None:
    """Return the chart of a metric after each number of inner steps; None if no learner was measured so.

    Args:
      sections: {label: what result.json says about one stage in one mode}.
    """
    measured = {
        label: section["inner_steps"] for label, section in sections.items() if "inner_steps" in section
    }
    names = [name for counts in measured.values() for columns in counts.values() for name in columns]
    if not names:
        return None
    metric = choose_shown_metric(names)
    lines = [
        make_steps_line(label, counts, metric, choose_color(number))
        for number, (label, counts) in enumerate(measured.items())
        if len(counts) > 1
    ]
    return Curves("after adaptation", "inner steps", metric, lines) if lines else None


def make_steps_line(label: str, counts: dict[str, Any], metric: str, color: int) -> Line:
    """Return one adaptation curve with its interval."""
    points = sorted((int(count), columns.get(metric, {})) for count, columns in counts.items())
    means, half = np.array([read_interval(interval) for _, interval in points]).T
    places = np.array([float(count) for count, _ in points])
    return Line(label, places, means, means - half, means + half, color)


def make_groups_chart(title: str, section: dict[str, Any]) -> Dots | None:
    """Return each group of tasks with its intervals before and after adaptation; None if there are no groups."""
    groups = section.get("groups", {})
    names = [name for learners in groups.values() for columns in learners.values() for name in columns]
    if not names:
        return None
    metric = choose_shown_metric(names)
    colors = {"adapted": 0, "unadapted": 2}  # as in the curves
    dots = [
        Dot(group, learner, *read_interval(columns[metric]), colors.get(learner, 3))
        for group, learners in groups.items()
        for learner, columns in learners.items()
        if metric in columns
    ]
    return Dots(title, metric, dots)


def read_interval(interval: dict[str, Any]) -> tuple[float, float]:
    """Return mean and half-width of an interval in result.json; NaN where one is missing."""
    return to_number(interval.get("mean")), to_number(interval.get("ci95"))
