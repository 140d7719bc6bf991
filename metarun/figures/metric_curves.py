"""The metrics of one stage over its outer steps."""

import math
from typing import Any

import numpy as np

POINTS = 200  # of a curve: more could not be told apart
COLUMNS = 3  # of panels: more would be too narrow for their labels
PANELS = 12  # of a picture; what further metrics were is in metrics.jsonl
# The keys of a line of metrics.jsonl that are no curves.
HEAD = ("stage", "replica", "member", "split", "step", "seconds", "mode")


def choose_metrics(rows: list[dict[str, Any]], selection: str) -> list[str]:
    """Return the metrics to draw, at most PANELS: those of validation, else of training; the selecting one first."""
    validated = [row for row in rows if row["split"] == "validation"] or rows[:1]
    names = [
        name
        for name in (validated[0] if validated else {})
        if name not in HEAD and not name.endswith("_ci95") and not name.startswith("unadapted_")
    ]
    return sorted(names, key=lambda name: (name != selection, name))[:PANELS]


def measure_curves(rows: list[dict[str, Any]], selection: str) -> tuple[float, float]:
    """Return the size in inches of a figure of `draw_curves`."""
    return 9.0, 3.8 * lay_out_panels(len(choose_metrics(rows, selection)))[0]


def lay_out_panels(panels: int) -> tuple[int, int]:
    """Return rows and columns: no more rows than needed, and then no more columns."""
    rows = max(1, -(-panels // COLUMNS))
    return rows, max(1, -(-panels // rows))


def draw_curves(figure, rows: list[dict[str, Any]], selection: str) -> None:
    """Draw a panel for each metric of one stage: training (means of equal parts) and validation with its interval."""
    names = choose_metrics(rows, selection)
    training = [row for row in rows if row["split"] == "train"]
    validation = [row for row in rows if row["split"] == "validation"]
    panels = figure.subplots(*lay_out_panels(len(names)), squeeze=False).ravel()
    for axes in panels[max(len(names), 1) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        points = [(row["step"], float(row[name])) for row in training if name in row]
        points = [point for point in points if math.isfinite(point[1])]
        if points:
            style = "-" if len(points) > 1 else "o"  # a line of one point cannot be seen
            axes.plot(*thin(np.array(points)), style, color="silver", label="training")
        if validation:
            draw_validation(axes, validation, name)
        axes.set(xlabel="outer step", ylabel=name)
        if name == "loss" and points and min(value for _, value in points) > 0:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)


def draw_validation(axes, rows: list[dict[str, Any]], name: str) -> None:
    """Draw the validation means, after and before adaptation, with the 95 % interval."""
    steps = [row["step"] for row in rows]
    means, half = (leave_gaps([float(row[key]) for row in rows]) for key in (name, f"{name}_ci95"))
    axes.plot(steps, means, ".-", color="tab:blue", label="validation, adapted")
    axes.fill_between(steps, means - half, means + half, color="tab:blue", alpha=0.2)
    if f"unadapted_{name}" in rows[0]:
        before = leave_gaps([float(row[f"unadapted_{name}"]) for row in rows])
        axes.plot(steps, before, ".--", color="tab:orange", label="validation, unadapted")


def leave_gaps(values: list[float]) -> np.ndarray:
    """Return the values, with a gap in the curve for each that is not finite."""
    return np.array([value if math.isfinite(value) else math.nan for value in values])


def thin(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points [step, value] as at most POINTS means of equal parts."""
    chunks = np.array_split(points, min(POINTS, len(points)))
    means = np.array([chunk.mean(axis=0) for chunk in chunks])
    return means[:, 0], means[:, 1]
