"""The metrics of one stage over its outer steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metarun.runs import metric_rows
from metarun.runs.metric_rows import Rows, make_rows

POINTS = 200  # of a curve: more could not be told apart
COLUMNS = 3  # of panels: more would be too narrow for their labels
PANELS = 12  # of a picture; what further metrics were is in metrics.jsonl
# The keys of a line of metrics.jsonl that are no curves.
HEAD = ("stage", "replica", "member", "split", "step", "seconds", "mode")


class Curve(NamedTuple):
    """One metric of some learners at the same steps; what is missing or not finite is NaN."""

    steps: np.ndarray  # [step]
    values: np.ndarray  # [learner, step]


def choose_metrics(rows: Sequence[Mapping[str, Any]], selection: str) -> list[str]:
    """Return the metrics to draw, at most PANELS: those of validation, else of training; the selecting one first.

    A metric without a single finite number has no panel.
    """
    rows = make_rows(rows)
    drawn = rows.where(split="validation") or rows.where(split="train")
    names = [
        name
        for name in (drawn[0] if drawn else {})
        if name not in HEAD and not name.endswith("_ci95") and not name.startswith("unadapted_")
    ]
    names = [name for name in names if np.isfinite(rows.get_numbers(name)).any()]
    return sorted(names, key=lambda name: (name != selection, name))[:PANELS]


def is_worth_drawing(rows: Sequence[Mapping[str, Any]], selection: str) -> bool:
    """Return whether there is a curve: some metric at two steps or more. One step is a number, and no curve."""
    rows = make_rows(rows)
    names = choose_metrics(rows, selection)
    return any(
        len(np.unique(rows.where(split=split).having(name).get_numbers("step"))) > 1
        for split in ("train", "validation")
        for name in names
    )


def measure_curves(rows: Sequence[Mapping[str, Any]], selection: str) -> tuple[float, float]:
    """Return the size in inches of a figure of `draw_curves`."""
    return 9.0, 3.8 * lay_out_panels(len(choose_metrics(rows, selection)))[0]


def lay_out_panels(panels: int) -> tuple[int, int]:
    """Return rows and columns: no more rows than needed, and then no more columns."""
    rows = max(1, -(-panels // COLUMNS))
    return rows, max(1, -(-panels // rows))


def draw_curves(figure, rows: Sequence[Mapping[str, Any]], selection: str, title: str = "") -> None:
    """Draw a panel for each metric of one stage: training (means of equal parts) and validation, each with a band.

    The band of several learners reaches from the lowest to the highest of them around their mean. That of a single one
    is the 95 % interval of its validation, over the episodes.
    """
    rows = make_rows(rows)
    names = choose_metrics(rows, selection)
    trained, validated = rows.where(split="train"), rows.where(split="validation")
    if title:
        figure.suptitle(title, fontsize="medium", wrap=True)
    panels = figure.subplots(*lay_out_panels(len(names)), squeeze=False).ravel()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        training = gather(trained, name)
        draw_training(axes, training)
        draw_validation(axes, validated, name)
        axes.set(xlabel="outer step", ylabel=name)
        if name == "loss" and spans_decades(training.values):
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize="small")


def spans_decades(values: np.ndarray) -> bool:
    """Return whether the values are positive, and one is ten times another: less is plainer on a linear axis."""
    return bool(values.size and 0 < 10 * np.nanmin(values) < np.nanmax(values))


def gather(rows: Rows, name: str) -> Curve:
    """Return one metric of all learners, at the steps at which one of them has a finite number."""
    return Curve(*metric_rows.tabulate(rows.where_finite(name), name))


def draw_training(axes, curve: Curve) -> None:
    """Draw the training: means over parts of the steps that are all equally long, and the band of the learners."""
    if not curve.steps.size:
        return
    width = find_width(len(curve.steps))
    label = f"training, means of {width} steps" if width > 1 else "training"
    draw_band(axes, thin(curve), label, color="gray", style="-")


def draw_validation(axes, rows: Rows, name: str) -> None:
    """Draw the validation, after and before adaptation."""
    adapted, before = gather(rows, name), gather(rows, f"unadapted_{name}")
    if before.steps.size:
        draw_band(axes, before, "validation, unadapted", color="tab:orange", style=".--")
    if not adapted.steps.size:
        return
    label = "validation, adapted" if before.steps.size else "validation"
    draw_band(axes, adapted, label, color="tab:blue", style=".-")
    if len(adapted.values) == 1:
        steps = rows.get_numbers("step").tolist()
        halves = dict(zip(steps, rows.get_numbers(f"{name}_ci95").tolist(), strict=True))
        half = np.array([halves[step] for step in adapted.steps])
        half = np.where(np.isfinite(half), half, math.nan)
        low, high = adapted.values[0] - half, adapted.values[0] + half
        axes.fill_between(adapted.steps, low, high, color="tab:blue", alpha=0.2, linewidth=0)


def draw_band(axes, curve: Curve, label: str, color: str, style: str) -> None:
    """Draw the mean of the learners, and between the lowest and the highest of them a band."""
    learners = len(curve.values)
    present = np.isfinite(curve.values)
    mean = np.where(present, curve.values, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    mean = np.where(present.any(axis=0), mean, math.nan)
    if len(curve.steps) == 1:
        style = "o"  # a line of one point cannot be seen
    if learners > 1:
        label += f", {learners} learners"
        low = np.where(present, curve.values, math.inf).min(axis=0)
        high = np.where(present, curve.values, -math.inf).max(axis=0)
        axes.fill_between(curve.steps, low, high, color=color, alpha=0.2, linewidth=0)
    axes.plot(curve.steps, mean, style, color=color, label=label, linewidth=1.2)


def find_width(steps: int) -> int:
    """Return how many steps each point of a curve is the mean of."""
    return max(1, -(-steps // POINTS))


def thin(curve: Curve) -> Curve:
    """Return at most POINTS means over parts of one width; the last part begins within the part before it."""
    count = len(curve.steps)
    width = find_width(count)
    starts = np.minimum(np.arange(0, count, width), count - width)
    parts = starts[:, None] + np.arange(width)  # [part, step]
    values = curve.values[:, parts]
    present = np.isfinite(values)
    sums = np.where(present, values, 0.0).sum(axis=-1)
    means = np.where(present.any(axis=-1), sums / np.maximum(present.sum(axis=-1), 1), math.nan)
    return Curve(curve.steps[parts].mean(axis=1), means)
