"""Learners by what they are worth and what they cost: the metric against a cost, with intervals."""

import math
from pathlib import Path
from typing import Any

from metarun.figures import canvas
from metarun.figures.comparison_plot import count_leaders, find_limits, format_interval
from metarun.finished.costs import MEASURES, measure

WIDE = 8  # times: costs that lie further apart are drawn on a logarithmic scale
MARKERS = "osD^vP*Xhd"


def write_costs(path: Path, comparison: dict[str, Any], against: str) -> None:
    """Write the metric of each learner against one of its costs (`costs.MEASURES`) as PNG."""
    height = max(4.5, 1.2 + 0.24 * len(comparison["ranking"]))
    canvas.write_figure(path, lambda figure: draw(figure, comparison, against), size=(11.0, height))


def draw(figure, comparison: dict[str, Any], against: str) -> None:
    """Draw a numbered point with its interval for each learner, and beside the axes whose number it is.

    The metric's axis spans the leaders; an arrow at its edge stands for a learner beyond it. The grey stairs lead
    through the learners that no cheaper one equals.
    """
    axes = figure.subplots()
    ranking = comparison["ranking"]
    costs = [measure(entry["cost"], against) for entry in ranking]
    behind = [abs((entry["behind"] or {"mean": 0.0})["mean"]) for entry in ranking]
    low, high = find_limits(ranking[: count_leaders(behind)], logarithmic=False)
    known = [
        place
        for place, cost in enumerate(costs)
        if cost is not None and cost > 0 and math.isfinite(ranking[place]["mean"])
    ]
    marks = [draw_learner(axes, place, ranking[place], costs[place], (low, high)) for place in known]
    draw_stairs(
        axes, [(costs[place], ranking[place]["mean"]) for place in known], comparison["higher_is_better"]
    )
    values = [cost for place in known if (cost := costs[place])]
    if values and max(values) > WIDE * min(values):
        axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set(xlabel=MEASURES[against], ylabel=comparison["metric"], ylim=(low, high))
    axes.grid(alpha=0.3)
    if marks:
        beside = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
        axes.legend(handles=marks, frameon=False, fontsize="small", **beside)
    figure.supxlabel(explain(comparison, known), fontsize="small")


def draw_learner(axes, place: int, entry: dict[str, Any], cost: Any, limits: tuple[float, float]) -> Any:
    """Draw one learner, and return its mark: its point with the interval, or an arrow at the edge.

    Its number stands beside it; those of arrows, which lie in one row, stand on two heights.
    """
    low, high = limits
    color, marker = f"C{place % 10}", MARKERS[(place // 10) % len(MARKERS)]
    label = f"{place + 1}  {entry['label']}  {format_interval(entry['mean'], entry['ci95'])}"
    style = {"color": color, "label": label}
    height, lift = entry["mean"], 5
    if low <= height <= high:
        mark = axes.errorbar([cost], [height], yerr=[entry["ci95"]], fmt=marker, capsize=3, **style)
    else:
        height, arrow = (low, "v") if height < low else (high, "^")
        mark, lift = axes.plot([cost], [height], arrow, clip_on=False, **style)[0], 5 + 12 * (place % 2)
    axes.annotate(
        str(place + 1),
        (cost, height),
        xytext=(7, lift),
        textcoords="offset points",
        color=color,
        fontweight="bold",
        annotation_clip=False,
    )
    return mark


def draw_stairs(axes, points: list[tuple[Any, float]], higher_is_better: bool) -> None:
    """Draw stairs through the points that no cheaper one equals."""
    best: list[tuple[float, float]] = []
    for cost, mean in sorted(
        points, key=lambda point: (point[0], -point[1] if higher_is_better else point[1])
    ):
        if not best or (mean > best[-1][1] if higher_is_better else mean < best[-1][1]):
            best.append((cost, mean))
    if len(best) > 1:
        axes.step(*zip(*best, strict=True), where="post", color="silver", linewidth=1, zorder=0)


def explain(comparison: dict[str, Any], known: list[int]) -> str:
    """Return what the marks mean, and which learners are not in the picture."""
    words = "mean and 95 % interval; grey: no cheaper learner is as good; an arrow lies beyond the axis"
    labels = [entry["label"] for place, entry in enumerate(comparison["ranking"]) if place not in known]
    return words + (f"\nnot recorded, or not finite: {', '.join(labels)}" if labels else "")
