"""Pictures of a run: PNG files under `<run>/pictures/`. The one place that knows matplotlib."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metarun.runs import files

POINTS = 200  # of a curve: more could not be told apart
COLUMNS = 3  # of panels: more would be too narrow for their labels
PANELS = 12  # of a picture; what further metrics were is in metrics.jsonl
HEAD = (
    "stage",
    "replica",
    "member",
    "split",
    "step",
    "seconds",
    "mode",
)  # keys of a line that are not curves


def write_figure(path: Path, draw: Callable[[Figure], None], size: tuple[float, float] = (8.0, 4.5)) -> None:
    """Draw a figure of `size` inches and write it as PNG, as one step."""
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    with files.storage_errors(path):
        path.parent.mkdir(exist_ok=True)
    files.write_bytes(path, content.getvalue())


def curve_names(rows: list[dict[str, Any]], objective_first: str) -> list[str]:
    """What is drawn, at most PANELS: the metrics of validation, or else all of training; the selecting one first."""
    validated = [row for row in rows if row["split"] == "validation"] or rows[:1]
    names = [
        name
        for name in (validated[0] if validated else {})
        if name not in HEAD and not name.endswith("_ci95") and not name.startswith("unadapted_")
    ]
    return sorted(names, key=lambda name: (name != objective_first, name))[:PANELS]


def curves_size(rows: list[dict[str, Any]], selection: str) -> tuple[float, float]:
    """Inches of a figure of `draw_curves`."""
    return 9.0, 3.8 * grid(len(curve_names(rows, selection)))[0]


def grid(panels: int) -> tuple[int, int]:
    """Rows and columns: no more rows than needed, and then no more columns."""
    rows = max(1, -(-panels // COLUMNS))
    return rows, max(1, -(-panels // rows))


def draw_curves(figure: Figure, rows: list[dict[str, Any]], selection: str) -> None:
    """A panel for each metric of one stage: training (means of equal parts) and validation with its interval."""
    names = curve_names(rows, selection)
    training = [row for row in rows if row["split"] == "train"]
    validation = [row for row in rows if row["split"] == "validation"]
    panels = figure.subplots(*grid(len(names)), squeeze=False).ravel()
    for axes in panels[max(len(names), 1) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        points = [(row["step"], float(row[name])) for row in training if name in row]
        points = [point for point in points if math.isfinite(point[1])]
        if points:
            style = "-" if len(points) > 1 else "o"  # a line of one point cannot be seen
            axes.plot(*thinned(np.array(points)), style, color="silver", label="training")
        if validation:
            draw_validation(axes, validation, name)
        axes.set(xlabel="outer step", ylabel=name)
        if name == "loss" and points and min(value for _, value in points) > 0:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)


def draw_validation(axes, rows: list[dict[str, Any]], name: str) -> None:
    """The validation means, after and before adaptation, with the 95 % interval."""
    steps = [row["step"] for row in rows]
    means, half = (finite([float(row[key]) for row in rows]) for key in (name, f"{name}_ci95"))
    axes.plot(steps, means, ".-", color="tab:blue", label="validation, adapted")
    axes.fill_between(steps, means - half, means + half, color="tab:blue", alpha=0.2)
    if f"unadapted_{name}" in rows[0]:
        before = finite([float(row[f"unadapted_{name}"]) for row in rows])
        axes.plot(steps, before, ".--", color="tab:orange", label="validation, unadapted")


def finite(values: list[float]) -> np.ndarray:
    """The values, with a gap of the curve where one is not finite."""
    return np.array([value if math.isfinite(value) else math.nan for value in values])


def thinned(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [step, value] as at most POINTS means of equal parts."""
    parts = np.array_split(points, min(POINTS, len(points)))
    means = np.array([part.mean(axis=0) for part in parts])
    return means[:, 0], means[:, 1]
