"""Adaptation curves: a metric over the inner steps."""

from pathlib import Path

from metarun.figures import canvas
from metarun.finished.adaptation import Curves


def write_curves(path: Path, curves: Curves) -> None:
    """Write the curves with their intervals as PNG; a learner with one point is a level."""
    canvas.write_figure(path, lambda figure: draw(figure, curves), size=(7.0, 4.5))


def draw(figure, curves: Curves) -> None:
    """Draw one curve for each run."""
    axes = figure.subplots()
    for index, curve in enumerate(curves.curves):
        means, halves = zip(*curve.points.values(), strict=True)
        if len(means) == 1:
            axes.axhline(means[0], color=f"C{index}", linestyle="--", label=curve.label)
        else:
            axes.errorbar(list(curve.points), means, halves, color=f"C{index}", capsize=3, label=curve.label)
    axes.set(xlabel="inner steps", ylabel=curves.metric)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
