"""How the time and the memory of an outer step grow with tasks, inner steps, ways, replicas and devices.

    python bench/bench_growth.py [--quick] [--json FILE] [--picture FILE] [--limit SECONDS]

Two problems: the sinusoid, and pictures of Omniglot's size with a conv4 of 16 channels. A curve changes one number and
keeps the others. Every point is compiled and timed by a process of its own, as `metarun train --dry-run --cost` does
it. Prints a table of the points and one of the curves, both in Markdown, and ends with exit code 1 if a curve grows
faster than its number.

The exponent of a curve is the slope of a line through the logarithms of its points: 1 is linear, 0 is no growth. At
small numbers the calls and the outer step hide the growth, so the slope of the last half of the points is taken too,
and the larger of the two counts. Its error follows from how far the repeats of a point lie apart. A point that is not
done after --limit seconds is left out, and said so.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import _bench_report
from _bench_settings import SINUSOID, Setting

from metarun import large_pages

WORKER = Path(__file__).resolve().with_name("_bench_growth_worker.py")
LINEAR = 1.05  # the largest exponent that still counts as linear
PICTURES = Setting("pictures", 32, 1, 5, 1, 0.4, ways=5, width=16)
NETS = {"sinusoid": SINUSOID, "pictures": PICTURES}
AXES: dict[str, tuple[int, ...]] = {
    "tasks": (8, 32, 128, 512, 1024),
    "inner_steps": (1, 2, 5, 10, 25, 50),
    "ways": (5, 10, 20, 40),
    "replicas": (1, 2, 4, 8, 16),
    "devices": (1, 2, 4, 8),
}
QUICK: dict[str, tuple[int, ...]] = {"tasks": (2, 4)}
MEMORY_FLOOR = 1e6  # bytes: temporaries below it fit into any cache, and how they grow matters little


@dataclass(frozen=True)
class Point:
    """One setting on a curve."""

    net: str
    axis: str
    value: int
    setting: Setting
    replicas: int = 1
    devices: int | None = None  # None: as `metarun train` chooses

    def encode(self) -> str:
        """Return the point as the worker's argument."""
        return json.dumps(
            {"setting": asdict(self.setting), "replicas": self.replicas, "devices": self.devices}
        )


class Slope(NamedTuple):
    """The exponent of a curve, and its standard error."""

    exponent: float
    error: float

    @property
    def at_most_linear(self) -> bool:
        """Whether the curve grows no faster than its number, within twice the error."""
        return self.exponent - 2 * self.error <= LINEAR


def list_points(axes: dict[str, tuple[int, ...]], cores: int) -> Iterator[Point]:
    """Yield every point of every curve. Devices are cores here, and no more than there are."""
    for net, setting in NETS.items():
        for axis, values in axes.items():
            for value in values:
                if axis in ("replicas", "devices"):
                    if axis == "replicas" or value <= cores:
                        yield Point(net, axis, value, setting, **{axis: value})
                elif axis != "ways" or setting.ways:
                    changes: dict[str, Any] = {axis: value}
                    yield Point(net, axis, value, replace(setting, **changes))


def measure_point(point: Point, limit: float) -> dict[str, Any] | None:
    """Measure a point in a process of its own; None: it failed, or took longer than `limit` seconds."""
    environment = large_pages.add_large_pages(os.environ)
    if point.devices:
        environment["JAX_NUM_CPU_DEVICES"] = str(point.devices)
    try:
        done = subprocess.run(
            [sys.executable, str(WORKER), point.encode()],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=limit,
            check=True,
        )
    except subprocess.SubprocessError as error:
        reason = "took too long" if isinstance(error, subprocess.TimeoutExpired) else "failed"
        print(f"{point.net}, {point.axis} {point.value}: {reason}, left out", file=sys.stderr)
        return None
    answer: dict[str, Any] = json.loads(done.stdout)
    return {"net": point.net, "axis": point.axis, "value": point.value, **answer}


def fit(values: list[int], heights: list[float], errors: list[float]) -> Slope:
    """Return the slope of the line through the logarithms of some points.

    Args:
      errors: of the logarithm of each height.
    """
    logarithms = [math.log(value) for value in values]
    middle = statistics.fmean(logarithms)
    offsets = [logarithm - middle for logarithm in logarithms]
    square = sum(offset**2 for offset in offsets)
    exponent = (
        sum(offset * math.log(height) for offset, height in zip(offsets, heights, strict=True)) / square
    )
    error = math.hypot(*(offset * error for offset, error in zip(offsets, errors, strict=True))) / square
    return Slope(exponent, error)


def fit_growth(values: list[int], heights: list[float], errors: list[float]) -> Slope:
    """Return the slope of all points or that of the last half of them, whichever is larger."""
    last = slice(-max(2, math.ceil(len(values) / 2)), None)
    slopes = [fit(values, heights, errors), fit(values[last], heights[last], errors[last])]
    return max(slopes, key=lambda slope: slope.exponent)


def fit_curve(rows: list[dict[str, Any]]) -> dict[str, Slope | None]:
    """Return the growth of the time and of the memory of a curve; None: too few points, or too little memory."""
    if len(rows) < 2:
        return {"time": None, "memory": None}
    values = [row["value"] for row in rows]
    spreads = [math.log(statistics.median(row["seconds"]) / min(row["seconds"])) for row in rows]
    time = fit_growth(values, [min(row["seconds"]) for row in rows], spreads)
    memory = None
    if all(row["temporary_bytes"] for row in rows) and rows[-1]["temporary_bytes"] > MEMORY_FLOOR:
        memory = fit_growth(values, [row["temporary_bytes"] for row in rows], [0.0] * len(rows))
    return {"time": time, "memory": memory}


def group_curves(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return {(net, axis): its rows}, in their order."""
    curves: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        curves.setdefault((row["net"], row["axis"]), []).append(row)
    return curves


def format_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def format_point(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a point as a line of the table."""
    temporary = row["temporary_bytes"]
    return (
        row["net"],
        f"{row['axis'].replace('_', ' ')} {row['value']:,}",
        f"{statistics.median(row['seconds']) * 1e3:.3g}",
        f"{min(row['seconds']) * 1e3:.3g}",
        f"{row['flops'] / 1e9:.3g}",
        "-" if temporary is None else f"{temporary / 1e6:.3g}",
        f"{row['process_bytes'] / 1e6:.0f}",
        f"{row['compile_seconds']:.1f}",
        str(row["devices"]),
    )


def format_slope(slope: Slope | None) -> str:
    """Return `0.97 ± 0.02`, with a warning if it is more than linear."""
    if slope is None:
        return "-"
    return f"{slope.exponent:.2f} ± {slope.error:.2f}" + " **more than linear**" * (not slope.at_most_linear)


def format_curve(net: str, axis: str, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return a curve as a line of the table."""
    slopes = fit_curve(rows)
    return (
        net,
        f"{axis.replace('_', ' ')} {rows[0]['value']:,} to {rows[-1]['value']:,}",
        format_slope(slopes["time"]),
        format_slope(slopes["memory"]),
    )


def format_report(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    machine, rows = report["machine"], report["points"]
    heading = (
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load']:.1f}, {rows[0]['device']}"
    )
    header = (
        "net",
        "point",
        "ms a step",
        "(min)",
        "GFLOP",
        "temporary MB",
        "process MB",
        "compile s",
        "devices",
    )
    points = format_table(header, [format_point(row) for row in rows])
    curves = format_table(
        ("net", "curve", "exponent of the time", "exponent of the temporary memory"),
        [format_curve(net, axis, members) for (net, axis), members in group_curves(rows).items()],
    )
    return "\n\n".join([heading, points, curves])


def draw(report: dict[str, Any], path: Path) -> None:
    """Write a picture: time and memory of a step over each number, on logarithmic axes."""
    from matplotlib.figure import Figure

    curves = group_curves(report["points"])
    axes = list(dict.fromkeys(axis for _, axis in curves))
    figure = Figure(figsize=(3.2 * len(axes), 6), layout="constrained")
    panels = figure.subplots(2, len(axes), squeeze=False)
    for (net, axis), rows in curves.items():
        column = axes.index(axis)
        values = [row["value"] for row in rows]
        panels[0, column].loglog(values, [min(row["seconds"]) * 1e3 for row in rows], "o-", label=net)
        panels[1, column].loglog(
            values, [(row["temporary_bytes"] or 0) / 1e6 for row in rows], "o-", label=net
        )
        panels[1, column].set_xlabel(axis.replace("_", " "))
        for panel in panels[:, column]:
            panel.set_xticks(values, map(str, values))
            panel.minorticks_off()
    panels[0, 0].set_ylabel("ms a step")
    panels[1, 0].set_ylabel("temporary MB a device")
    panels[0, 0].legend()
    figure.savefig(path, dpi=120)


def measure(axes: dict[str, tuple[int, ...]], limit: float) -> dict[str, Any]:
    """Measure every point of every curve."""
    machine = _bench_report.describe_machine()
    rows = []
    for point in list_points(axes, machine["cores"]):
        print(f"measuring {point.net}, {point.axis} {point.value}", file=sys.stderr)
        if row := measure_point(point, limit):
            rows.append(row)
    if not rows:
        raise SystemExit("no point could be measured; the errors stand above")
    return {"machine": machine, "points": rows}


def is_at_most_linear(report: dict[str, Any]) -> bool:
    """Return whether no curve grows faster than its number."""
    slopes = [slope for rows in group_curves(report["points"]).values() for slope in fit_curve(rows).values()]
    return all(slope.at_most_linear for slope in slopes if slope)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two points of two curves, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write the curves there, as PNG or SVG")
    parser.add_argument("--limit", type=float, default=600.0, metavar="SECONDS", help="of one point")
    arguments = parser.parse_args()
    report = measure(QUICK if arguments.quick else AXES, arguments.limit)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.picture:
        draw(report, arguments.picture)
    print(format_report(report))
    # Two points on a busy machine prove nothing, so the quick run fails for no exponent.
    sys.exit(0 if arguments.quick or is_at_most_linear(report) else 1)


if __name__ == "__main__":
    main()
