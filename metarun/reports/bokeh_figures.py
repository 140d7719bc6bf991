"""Charts as interactive plots inside the page. The only module that imports bokeh.

Bokeh's own script is put into the page as a whole: 1.3 MB, against 4.8 MB for Plotly. It draws on a phone, and
needs no network.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from metarun.reports.charts import Chart, Curves, Dots, wants_logarithm

# A palette that people with colour blindness tell apart (Okabe and Ito); the second colour is for training.
PALETTE = ("#0072b2", "#8a8a8a", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b09c00")
HEIGHT = 300  # pixels of a plot with curves
ROW = 26  # pixels of a row with a dot
NARROW = 45  # letters of a legend that fit beside one another on a phone
SIGN = 4  # letters that the sign before a name takes


class Plots(NamedTuple):
    """What goes into the page. All of it is markup, and what it holds is escaped."""

    bokeh: str  # its own script; "" without plots
    script: str  # draws the plots
    places: dict[str, str]  # {name: the element in which the plot appears}


def embed_charts(charts: Mapping[str, Chart]) -> Plots:
    """Return the plots of a page."""
    if not charts:
        return Plots("", "", {})
    from bokeh.embed import components
    from bokeh.resources import Resources

    figures = {name: draw(chart) for name, chart in charts.items()}
    script, places = components(figures)
    bokeh = "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)
    return Plots(f"<script>{bokeh}</script>", script, places)


def draw(chart: Chart) -> Any:
    """Return a figure that is as wide as the page."""
    return draw_dots(chart) if isinstance(chart, Dots) else draw_curves(chart)


def make_figure(chart: Chart, **options: Any) -> Any:
    """Return an empty figure. No gesture is taken from a page that somebody scrolls, until a tool is chosen."""
    from bokeh.plotting import figure

    plot = figure(
        title=make_plain(chart.title),
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        active_drag=None,
        active_scroll=None,
        **options,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = False
    return plot


def make_plain(text: str) -> str:
    """Return text that bokeh does not take for a formula, which it would fetch a typesetter for."""
    return text.replace("$$", "$ $").replace("\\(", "\\ (").replace("\\[", "\\ [")


def draw_curves(chart: Curves) -> Any:
    """Draw every line with its band."""
    from bokeh.models import HoverTool

    scale = "log" if wants_logarithm(chart) else "linear"
    plot = make_figure(chart, height=HEIGHT, y_axis_type=scale)
    plot.xaxis.axis_label, plot.yaxis.axis_label = make_plain(chart.horizontal), make_plain(chart.vertical)
    hovered = []
    for line in chart.lines:
        label, color = make_plain(line.label), PALETTE[line.color % len(PALETTE)]
        data = {
            "curve": [line.label] * len(line.places),
            "place": line.places,
            "mean": line.means,
            "low": line.low,
            "high": line.high,
        }
        if np.any(line.high > line.low):
            plot.varea(
                "place", "low", "high", source=make_source(data), color=color, alpha=0.2, legend_label=label
            )
        dash = "dashed" if line.dashed else "solid"
        source = make_source(data)
        plot.line(
            "place", "mean", source=source, color=color, line_width=2, line_dash=dash, legend_label=label
        )
        few = len(line.places) <= 60  # more marks would be a thick line
        size = 5 if few else 2
        hovered.append(
            plot.scatter("place", "mean", source=source, color=color, size=size, legend_label=label)
        )
    tips = [
        ("", "@curve"),
        (chart.horizontal, "@place{0}"),
        ("mean", "@mean"),
        ("from", "@low"),
        ("to", "@high"),
    ]
    plot.add_tools(HoverTool(renderers=hovered, tooltips=tips))
    place_legend(plot)
    return plot


def draw_dots(chart: Dots) -> Any:
    """Draw a row for each label, with a dot and an interval for each series."""
    from bokeh.models import HoverTool
    from bokeh.transform import dodge

    rows = list(dict.fromkeys(make_plain(dot.label) for dot in chart.dots))
    names = list(dict.fromkeys(dot.series for dot in chart.dots))
    scale = "log" if wants_logarithm(chart) else "linear"
    plot = make_figure(chart, height=110 + ROW * len(chart.dots), y_range=rows[::-1], x_axis_type=scale)
    plot.xaxis.axis_label = make_plain(chart.horizontal)
    hovered = []
    for number, name in enumerate(names):
        dots = [dot for dot in chart.dots if dot.series == name]
        data = {
            "row": [make_plain(dot.label) for dot in dots],
            "series": [name] * len(dots),
            "mean": [dot.mean for dot in dots],
            "low": [dot.mean - finite(dot.half) for dot in dots],
            "high": [dot.mean + finite(dot.half) for dot in dots],
        }
        source, shift = make_source(data), 0.3 * ((len(names) - 1) / 2 - number)
        color = PALETTE[dots[0].color % len(PALETTE)]
        row = dodge("row", shift, range=plot.y_range)
        plot.segment("low", row, "high", row, source=source, color=color, line_width=2, legend_label=name)
        hovered.append(plot.scatter("mean", row, source=source, color=color, size=8, legend_label=name))
    tips = [("", "@row"), ("", "@series"), ("mean", "@mean"), ("from", "@low"), ("to", "@high")]
    plot.add_tools(HoverTool(renderers=hovered, tooltips=tips))
    place_legend(plot)
    return plot


def make_source(data: dict[str, Any]) -> Any:
    """Return the columns of a plot."""
    from bokeh.models import ColumnDataSource

    return ColumnDataSource(data)


def finite(value: float) -> float:
    """Return the value, or 0 if it is not finite."""
    return value if math.isfinite(value) else 0.0


def place_legend(plot: Any) -> None:
    """Put the legend above the plot, where it hides nothing; a tap on an entry hides its curve."""
    if not plot.legend:
        return
    legend = plot.legend[0]
    legend.click_policy = "hide"
    labels = [item.label.value for item in legend.items]
    if sum(map(len, labels)) + SIGN * len(labels) <= NARROW:
        legend.orientation = "horizontal"
    else:
        plot.height += 20 * len(labels)
    legend.border_line_color, legend.label_text_font_size, legend.padding = None, "11px", 2
    plot.add_layout(legend, "above")
