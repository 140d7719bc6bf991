"""What a plot shows, without the library that draws it."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

MUCH = 30  # times: positive values that lie further apart get a logarithmic axis
# The places in the palette for lines of equal standing: the gray of the training comes last.
EQUALS = (0, 2, 3, 4, 5, 6, 7, 1)


class Line(NamedTuple):
    """A curve with its band. NaN is a gap."""

    label: str
    places: Float[np.ndarray, "point"]  # outer steps, or numbers of inner steps
    means: Float[np.ndarray, "point"]
    low: Float[np.ndarray, "point"]  # the band; equal to `high` where there is none
    high: Float[np.ndarray, "point"]
    color: int = 0  # its place in the palette
    dashed: bool = False


class Curves(NamedTuple):
    """Curves over steps."""

    title: str
    horizontal: str  # label of the axis
    vertical: str
    lines: list[Line]
    may_be_logarithmic: bool = True


class Dot(NamedTuple):
    """One value with its interval."""

    label: str  # its row
    series: str  # what the legend says
    mean: float
    half: float  # half the width of the 95 % interval
    color: int = 0  # its place in the palette


class Dots(NamedTuple):
    """Values with intervals, one row under the other, the first one on top."""

    title: str
    horizontal: str
    dots: list[Dot]


Chart = Curves | Dots


def choose_color(number: int) -> int:
    """Return the place in the palette of one of several lines of equal standing."""
    return EQUALS[number % len(EQUALS)]


def to_number(value: Any) -> float:
    """Return a value of metrics.jsonl or result.json as a number; NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def wants_logarithm(chart: Chart) -> bool:
    """Return whether the values are positive, and lie so far apart that a linear axis would hide the small ones."""
    if isinstance(chart, Dots):
        values = np.array([dot.mean for dot in chart.dots])
        edges = np.array([dot.mean - dot.half for dot in chart.dots])
    else:
        if not chart.may_be_logarithmic:
            return False
        values = np.concatenate([line.means for line in chart.lines])
        edges = np.concatenate([line.low for line in chart.lines])
    values, edges = values[np.isfinite(values)], edges[np.isfinite(edges)]
    return bool(
        len(values)
        and min(values.min(), edges.min(initial=math.inf)) > 0
        and values.max() > MUCH * values.min()
    )
