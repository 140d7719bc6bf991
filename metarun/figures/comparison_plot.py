"""Runs beside one another: each learner with its interval, and how far behind the best it is."""

import math
from pathlib import Path
from typing import Any

from metarun.figures import canvas
from metarun.finished.pairwise import find_possible_best

WIDE = 30  # times: errors of the leaders that lie further apart are drawn on a logarithmic scale
LEADERS = 0.5  # at least this share of the learners sets the axis
REACH = 2.0  # times as far behind as the leaders so far: the next learner is a leader too
MARGIN = 0.08  # of the axis, on both sides
MAY_BE_BEST, OTHER, BEYOND = "tab:orange", "tab:blue", "gray"


def write_comparison(path: Path, comparison: dict[str, Any]) -> None:
    """Write the picture of a comparison as PNG."""
    height = 2.0 + 0.36 * len(comparison["ranking"])
    canvas.write_figure(path, lambda figure: draw(figure, comparison), size=(12.0, height))


def draw(figure, comparison: dict[str, Any]) -> None:
    """Draw each learner with its interval, and beside it how far behind the best it is, by pairs."""
    ranking = comparison["ranking"][::-1]  # the best on top
    left, right = figure.subplots(1, 2, sharey=True)
    behind = [entry["behind"] or {"mean": 0.0, "ci95": 0.0} for entry in ranking]
    leaders = count_leaders([abs(difference["mean"]) for difference in behind[::-1]])
    colors = choose_colors(comparison)[::-1]
    draw_column(left, ranking, leaders, colors, is_wide(comparison, leaders))
    draw_column(right, behind, leaders, colors, False)
    right.axvline(0.0, color="silver", linewidth=1, zorder=0)
    left.set(yticks=range(len(ranking)), yticklabels=[entry["label"] for entry in ranking])
    left.set(xlabel=comparison["metric"], title="mean and 95 % interval", ylim=(-0.7, len(ranking) - 0.3))
    right.set(xlabel=f"{comparison['metric']} minus that of the best", title="paired difference")
    figure.supxlabel(explain(comparison, leaders), fontsize="small")


def explain(comparison: dict[str, Any], leaders: int) -> str:
    """Return what the colours and the arrows mean."""
    beyond = sum(math.isfinite(entry["mean"]) for entry in comparison["ranking"][leaders:])
    orange = (
        "orange: may be the best (one-sided paired tests against the first, 5 % for all of them together)"
    )
    count = "1 learner lies" if beyond == 1 else f"{beyond} learners lie"
    return orange + f"; grey arrows: {count} beyond the axis" * (beyond > 0)


def choose_colors(comparison: dict[str, Any]) -> list[str]:
    """Return a colour for each learner, in the order of the ranking: of those that may be the best, or another one."""
    first = comparison["differences"][: len(comparison["ranking"]) - 1]  # those of the best
    possible = find_possible_best([difference["p"] for difference in first])
    return [MAY_BE_BEST, *(MAY_BE_BEST if may_be_best else OTHER for may_be_best in possible)]


def count_leaders(distances: list[float]) -> int:
    """Return how many learners, from the best on, set the axis; the others lie too far behind.

    Args:
      distances: to the best, in the order of the ranking.
    """
    finite = [distance for distance in distances if math.isfinite(distance)]
    count = max(math.ceil(LEADERS * len(finite)), min(3, len(finite)))
    while count < len(finite) and finite[count] <= REACH * finite[count - 1]:
        count += 1
    return count


def is_wide(comparison: dict[str, Any], leaders: int) -> bool:
    """Return whether the leaders' errors lie so far apart that only a logarithmic scale shows them all."""
    means = [entry["mean"] for entry in comparison["ranking"][:leaders]]
    return bool(means) and not comparison["higher_is_better"] and 0 < WIDE * min(means) < max(means)


def draw_column(
    axes, intervals: list[dict[str, Any]], leaders: int, colors: list[str], logarithmic: bool
) -> None:
    """Draw intervals from the bottom, the leaders on top, each with its number at the right edge.

    The axis spans the leaders. An arrow at its edge stands for a learner beyond it.
    """
    low, high = find_limits(intervals[len(intervals) - leaders :], logarithmic)
    if logarithmic:
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=6)
    axes.set_xlim(low, high)
    for row, (interval, color) in enumerate(zip(intervals, colors, strict=True)):
        mean, half = interval["mean"], interval["ci95"]
        if low <= mean <= high:
            axes.errorbar([mean], [row], xerr=[half], fmt="o", capsize=3, markersize=4, color=color)
        else:
            color = BEYOND
            if math.isfinite(mean):
                place, marker = (low, "<") if mean < low else (high, ">")
                axes.plot([place], [row], marker, color=color, clip_on=False)
        number = "" if mean == half == 0.0 else format_interval(mean, half)
        axes.annotate(
            number,
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize="small",
            color=color,
        )
    axes.grid(axis="x", alpha=0.3)


def find_limits(intervals: list[dict[str, Any]], logarithmic: bool) -> tuple[float, float]:
    """Return the ends of an axis that shows these intervals whole."""
    means = [interval["mean"] for interval in intervals if math.isfinite(interval["mean"])]
    halves = [interval["ci95"] for interval in intervals if math.isfinite(interval["ci95"])]
    if not means:
        return 0.0, 1.0
    low, high = min(means) - max(halves, default=0.0), max(means) + max(halves, default=0.0)
    if logarithmic:
        return min(means) / 1.5, high * 1.5
    room = MARGIN * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def format_interval(mean: float, half: float) -> str:
    """Return `0.9873 ± 0.0031`."""
    if not math.isfinite(mean):
        return "not finite"
    # The mean has four digits behind the point.
    is_rounded = 0.001 <= abs(mean) < 100 and 0.00005 < half < 0.001
    return f"{format_number(mean)} ± {f'{half:.4f}' if is_rounded else format_number(half)}"


def format_number(value: float) -> str:
    """Return a number with three digits behind the point, or with three digits if it is small or large."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 100 or value == 0 else f"{value:.3g}"
