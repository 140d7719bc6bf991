"""`metarun online`: what each learner reaches along the streams, as a table and as a picture."""

from pathlib import Path
from typing import Any

import typer

from metarun import online
from metarun.cli.tables import aligned, spoken
from metarun.runs import pictures

SHOWN = 5  # times that the table has


def print_online(found: dict[str, Any]) -> None:
    """A line a learner and moment: the mean over all times, and some of them."""
    metric, count = found["metric"], found["times"]
    times = sorted({round(1 + (count - 1) * place / (SHOWN - 1)) for place in range(SHOWN)})
    rows = [["learner", "support", f"{metric}, all times", *(f"time {time}" for time in times)]]
    for name, moments in found["learners"].items():
        for moment, columns in moments.items():
            curve = columns[metric]["over_time"]["mean"]
            rows.append(
                [name, moment, interval(columns[metric]), *(f"{curve[time - 1]:.3g}" for time in times)]
            )
    typer.echo(aligned(rows))
    typer.echo(
        f"{found['streams']} streams of the {found['split']} split, {found['mode']}; mean ± 95 % confidence interval "
        f"over streams; each time is {found['speed']:g} of the way to an independent task"
    )


def interval(part: dict[str, Any]) -> str:
    """`0.0085 ± 0.0016`."""
    return spoken({"mean": part["mean"], "ci95": part["ci95"]})


def write_plot(path: Path, found: dict[str, Any]) -> None:
    """The picture, as PNG."""
    pictures.write_figure(path, lambda figure: online.draw(figure, found), size=(10.0, 4.0))
