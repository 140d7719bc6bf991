"""Learners along tasks that change: the metric over time."""

from pathlib import Path
from typing import Any

import numpy as np

from metarun.figures import canvas

COLORS = {"kept": "silver", "restarted": "tab:blue", "continued": "tab:purple", "adaptive": "tab:orange"}


def write_drift(path: Path, measured: dict[str, Any]) -> None:
    """Write the picture of what `metarun.finished.drift.measure` returns, as PNG."""
    canvas.write_figure(path, lambda figure: draw(figure, measured), size=(10.0, 4.0))


def draw(figure, measured: dict[str, Any]) -> None:
    """Draw the metric over time: what a learner answered before the new support, and after it."""
    metric, times = measured["metric"], np.arange(1, measured["times"] + 1)
    axes = figure.subplots(1, 2, sharey=True)
    for panel, moment in zip(axes, ("before", "after"), strict=True):
        for name, moments in measured["learners"].items():
            curve = moments[moment][metric]["over_time"]
            mean, ci95 = np.array(curve["mean"]), np.array(curve["ci95"])
            panel.plot(times, mean, color=COLORS[name], label=name)
            panel.fill_between(times, mean - ci95, mean + ci95, color=COLORS[name], alpha=0.25, linewidth=0)
        panel.set(xlabel="time", title=f"{moment} the new support")
    axes[0].set_ylabel(metric)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
