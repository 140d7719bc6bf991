"""What bench/bench.py prints: its tables, and the machine that they were measured on."""

import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS = "metarun"  # the sides: this checkout, PyTorch, and another checkout
TORCH_SIDE = "torch"
BEFORE = "before"

Side = dict[str, Any]  # {"seconds": [repeat], "memory": bytes, facts of the worker}
Result = dict[str, Any]  # {"setting": name, side: Side}


def format_report(report: dict[str, Any]) -> str:
    """Return the report as text."""
    facts, peak = report["machine"], report["peak_flops"]
    first = report["settings"][0]
    sides = [side for side in (OURS, TORCH_SIDE, BEFORE) if side in first]
    versions = [f"jax {first[OURS]['version']}"]
    if TORCH_SIDE in first:
        threads = ", ".join(str(result[TORCH_SIDE]["threads"]) for result in report["settings"])
        versions += [f"torch {first[TORCH_SIDE]['version']} with {threads} threads"]
    heading = (
        f"{facts['processor']}, {facts['cores']} cores, load {facts['load']:.1f}; Python {facts['python']}, "
        f"{', '.join(versions)} on {first[OURS]['device']}; "
        f"float32 matrix products reach {peak / 1e9:.0f} GFLOP/s"
    )
    tables = [
        align([make_header(sides), *[make_row(result, peak, sides) for result in report[series]]])
        for series in ("settings", "growth")
        if series in report
    ]
    return "\n\n".join([heading, *tables])


def make_header(sides: list[str]) -> tuple[str, ...]:
    """Return the head of the table; the first side is the one that the others are compared with."""
    columns = ["setting"]
    for side in sides:
        columns += [
            f"{side} s/step",
            "(min)",
            "core s",
            *([f"{side}/{OURS}", "(min)"] if side != OURS else []),
        ]
    return (*columns, "GFLOP", "of peak", "(max)", "sampling", "compile s", *(f"{side} GB" for side in sides))


def make_row(result: Result, peak: float, sides: list[str]) -> tuple[str, ...]:
    """Return the result as a line of the table."""
    ours = result[OURS]
    median = statistics.median(ours["seconds"])
    cells = [result["setting"]]
    for side in sides:
        cells += make_side_cells(result[side], None if side == OURS else ours)
    # On a CPU, the peak is that of all cores, however many devices they are.
    machine_peak = peak * (1 if ours.get("platform") == "cpu" else ours["devices"])
    return (
        *cells,
        f"{ours['matrix_flops'] / 1e9:.3g}",
        *(
            f"{ours['matrix_flops'] / seconds / machine_peak:.1%}"
            for seconds in (median, min(ours["seconds"]))
        ),
        f"{ours['sampling_seconds'] / median:.1%}",
        f"{ours['compile_seconds']:.1f}",
        *(f"{result[side]['memory'] / 1e9:.2f}" for side in sides),
    )


def make_side_cells(side: Side, ours: Side | None) -> list[str]:
    """Return the seconds of a step, median and fastest, those on all cores, and how many times ours each is."""
    median, fastest = statistics.median(side["seconds"]), min(side["seconds"])
    cells = [f"{median:.3g}", f"{fastest:.3g}", f"{statistics.median(side['core_seconds']):.3g}"]
    if ours is None:
        return cells
    ratios = median / statistics.median(ours["seconds"]), fastest / min(ours["seconds"])
    return cells + [f"{ratio:.2f}" for ratio in ratios]


def align(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as text, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(pairs)]
        for pairs in (zip(cells, widths, strict=True) for cells in rows)
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in lines)


def describe_machine() -> dict[str, Any]:
    """Return what the numbers depend on beside the code."""
    return {
        "processor": name_processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],  # at the start: the work of others makes every number worse
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def name_processor() -> str:
    """Return the name of the processor, or of the machine if the system does not say it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
