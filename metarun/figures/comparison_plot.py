"""Runs beside one another: each learner with its interval, and how far behind the best it is."""

import math
from pathlib import Path
from typing import Any

from metarun.figures import canvas

WIDE = 30  # times: errors that lie further apart are drawn on a logarithmic scale


def write_comparison(path: Path, comparison: dict[str, Any]) -> None:
    """Write the picture of a comparison as PNG."""
    height = 1.6 + 0.4 * len(comparison["ranking"])
    canvas.write_figure(path, lambda figure: draw(figure, comparison), size=(10.0, height))


def draw(figure, comparison: dict[str, Any]) -> None:
    """Draw each learner with its interval, and beside it how far behind the best it is, by pairs."""
    ranking = comparison["ranking"][::-1]  # the best on top
    rows = range(len(ranking))
    left, right = figure.subplots(1, 2, sharey=True)
    left.errorbar(
        [entry["mean"] for entry in ranking],
        rows,
        xerr=[entry["ci95"] for entry in ranking],
        fmt="o",
        capsize=3,
    )
    left.set(
        yticks=list(rows), yticklabels=[entry["label"] for entry in ranking], xlabel=comparison["metric"]
    )
    left.set_title("mean and 95 % interval")
    means = [entry["mean"] for entry in ranking]
    if not comparison["higher_is_better"] and 0 < WIDE * min(means) < max(means) < math.inf:
        left.set_xscale("log")
    behind = [entry["behind"] or {"mean": 0.0, "ci95": 0.0} for entry in ranking]
    right.axvline(0.0, color="silver", linewidth=1)
    right.errorbar(
        [difference["mean"] for difference in behind],
        rows,
        xerr=[difference["ci95"] for difference in behind],
        fmt="o",
        capsize=3,
        color="tab:purple",
    )
    right.set(xlabel=f"{comparison['metric']} minus that of the best", title="paired difference")
