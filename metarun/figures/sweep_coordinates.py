"""The settings of a sweep as lines through one axis a key, and a last one for what they reached."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from metarun.figures import canvas

WIDE = 30  # times: values that lie further apart are laid out on a logarithmic axis
TICKS = 5  # of an axis of numbers
MARGIN = 0.04  # of an axis, beyond its outermost values


class Coordinate(NamedTuple):
    """One axis of the picture."""

    label: str
    heights: list[float]  # of each setting, from 0 to 1
    ticks: list[tuple[float, str]]  # (height, text)


def write_coordinates(path: Path, ranking: dict[str, Any], title: str) -> None:
    """Write the parallel coordinates of a ranking as PNG."""
    width = 3.0 + 1.9 * len(ranking["keys"])
    canvas.write_figure(path, lambda figure: draw(figure, ranking, title), size=(max(width, 6.0), 4.8))


def draw(figure, ranking: dict[str, Any], title: str) -> None:
    """Draw a line for each setting: the best in front and in colour, those that did not train to the end in grey."""
    lines = [line for line in ranking["ranking"] if line["mean"] is not None]
    coordinates = [make_coordinate(key, [line["setting"][key] for line in lines]) for key in ranking["keys"]]
    reached = make_coordinate(f"{ranking['metric']} (validation)", [line["mean"] for line in lines])
    axes = figure.subplots()
    colours = choose_colours(lines, reached.heights, ranking["higher_is_better"])
    for place in reversed(range(len(lines))):
        heights = [coordinate.heights[place] for coordinate in (*coordinates, reached)]
        width = 3.0 if place == 0 else 1.2
        axes.plot(range(len(heights)), heights, color=colours[place], linewidth=width, solid_capstyle="round")
    for column, coordinate in enumerate((*coordinates, reached)):
        axes.axvline(column, color="black", linewidth=0.8)
        for height, text in coordinate.ticks:
            axes.annotate(text, (column, height), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
                          bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8})  # fmt: skip
    labels = [shorten(coordinate.label) for coordinate in (*coordinates, reached)]
    axes.set_xticks(range(len(labels)), labels)
    axes.set(yticks=[], ylim=(-MARGIN, 1 + MARGIN), xlim=(-0.15, len(labels) - 0.5))
    axes.set_frame_on(False)
    axes.tick_params(length=0)
    better = "higher" if ranking["higher_is_better"] else "lower"
    stopped = "; a rung has stopped the grey ones" * any(line["state"] == "stopped" for line in lines)
    axes.set_title(f"{title}\nthe thick line is the best setting; {better} is better{stopped}", fontsize=10)


def make_coordinate(label: str, values: list[Any]) -> Coordinate:
    """Lay out values on an axis: numbers by size, on a logarithmic axis if they are far apart; others side by side."""
    texts = list(dict.fromkeys(json.dumps(value) for value in values))
    if not all(type(value) in (int, float) for value in values):
        heights = {text: (place + 0.5) / len(texts) for place, text in enumerate(texts)}
        ticks = [(heights[text], text.strip('"')) for text in texts]
        return Coordinate(label, [heights[json.dumps(value)] for value in values], ticks)
    low, high = min(values), max(values)
    is_log = low > 0 and high > WIDE * low

    def measure(value: float) -> float:
        if low == high:
            return 0.5
        return math.log(value / low) / math.log(high / low) if is_log else (value - low) / (high - low)

    shown = sorted(set(values))
    if len(shown) > TICKS:
        shares = [place / (TICKS - 1) for place in range(TICKS)]
        shown = [low * (high / low) ** share if is_log else low + (high - low) * share for share in shares]
    return Coordinate(
        label, [measure(value) for value in values], [(measure(value), f"{value:.3g}") for value in shown]
    )


def choose_colours(lines: list[dict[str, Any]], heights: list[float], higher_is_better: bool) -> list[Any]:
    """Return the colour of each setting: grey if it was stopped, else from dark, the best, to light."""
    from matplotlib import colormaps

    shade = colormaps["viridis"]
    return [
        shade(0.9 * (1 - height if higher_is_better else height)) if line["state"] == "done" else "silver"
        for line, height in zip(lines, heights, strict=True)
    ]


def shorten(key: str) -> str:
    """Return a key in lines that fit below an axis."""
    head, dot, last = key.rpartition(".")
    return f"{last}\n{head}" if dot else key
