"""How many inner steps each of some runs needs: their adaptation curves side by side, from their result.json.

    python scripts/steps_curve.py RUN RUN ... [--picture curves.png]

Every run must have `evaluation.inner_steps`, on the same frozen episodes; a run without an inner loop is a level.
Beside each point of the first run's curve stand the steps after which every other run is at least as good.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot


class Curve(NamedTuple):
    """One stage of a run."""

    label: str  # run and stage
    points: dict[int, tuple[float, float]]  # {inner steps: (mean, half-width of the 95 % interval)}


def read(run: Path, metric: str) -> tuple[Curve, str]:
    """The curve of the last stage, in the run's first mode, and the hash of its episodes."""
    result: dict[str, Any] = json.loads((run / "result.json").read_text("utf-8"))
    name, stage = list(result["stages"].items())[-1]
    variants = stage[result["modes"][0]]
    measured = variants.get("inner_steps") or {"0": variants["adapted"]}
    points = {int(steps): (each[metric]["mean"], each[metric]["ci95"]) for steps, each in measured.items()}
    return Curve(f"{run.name} ({name})", dict(sorted(points.items()))), result["episodes"]["hash"]


def needed(curve: Curve, level: float, higher_is_better: bool) -> int | None:
    """The fewest inner steps after which the curve is at least as good as `level`; None: it never is."""
    sign = 1 if higher_is_better else -1
    return next((steps for steps, (mean, _) in curve.points.items() if sign * mean >= sign * level), None)


def table(curves: list[Curve], higher_is_better: bool) -> str:
    """A line a point; in those of the first run also the steps that the others need to be as good."""
    lines = []
    for curve in curves:
        lines.append(curve.label)
        for steps, (mean, half) in curve.points.items():
            line = f"  {steps:>3} steps  {mean:.4f} ± {half:.4f}"
            if curve is curves[0]:
                line += "".join(reached(other, mean, higher_is_better) for other in curves[1:])
            lines.append(line)
    return "\n".join(lines)


def reached(curve: Curve, level: float, higher_is_better: bool) -> str:
    steps = needed(curve, level, higher_is_better)
    return f"; {curve.label} {'never' if steps is None else f'after {steps}'}"


def draw(curves: list[Curve], metric: str, path: Path) -> None:
    """The curves with their intervals; a run with one point is a level."""
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for index, curve in enumerate(curves):
        means, halves = zip(*curve.points.values(), strict=True)
        if len(means) == 1:
            axes.axhline(means[0], color=f"C{index}", linestyle="--", label=curve.label)
        else:
            axes.errorbar(list(curve.points), means, halves, color=f"C{index}", capsize=3, label=curve.label)
    axes.set(xlabel="inner steps", ylabel=metric)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Parse, read, print, and draw if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    curves, hashes = zip(*(read(run, options.metric) for run in options.runs), strict=True)
    if len(set(hashes)) > 1:
        sys.exit(f"these runs were measured on different episodes: {', '.join(hashes)}")
    print(table(list(curves), options.metric != "loss"))
    if options.picture:
        draw(list(curves), options.metric, options.picture)
        print(options.picture)


if __name__ == "__main__":
    main()
