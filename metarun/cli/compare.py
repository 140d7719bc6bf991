"""`metarun compare`: the comparison as a table, and as a picture."""

from pathlib import Path
from typing import Any

import typer

from metarun import comparison
from metarun.cli.tables import aligned, spoken
from metarun.runs import pictures


def print_comparison(found: dict[str, Any]) -> None:
    """A line a learner, best first, and under it what the numbers mean."""
    earlier = any(each["cost"]["earlier_seconds"] for each in found["ranking"])
    header = ["", "learner", found["metric"], "minus the best", "steps", "seconds", "parameters", "state"]
    rows = [row(number, each, earlier) for number, each in enumerate(found["ranking"], start=1)]
    if earlier:
        header.insert(6, "before")
    typer.echo(aligned([header, *rows]))
    close = [each for each in found["differences"] if not each["differ"]]
    for each in close:
        typer.echo(
            f"{each['of']} and {each['minus']} cannot be told apart: {interval(each)} on the same episodes"
        )
    episodes = found["episodes"]
    seeded = any("seeds" in each for each in found["ranking"])
    better = "higher" if found["higher_is_better"] else "lower"
    typer.echo(
        f"{found['metric']}: {better} is better; {found['mode']}, {found['learner']}; {episodes['count']} "
        f"{episodes['split']} episodes ({episodes['hash']}), mean ± 95 % confidence interval, differences by pairs"
        f"{'; in brackets the interval over the seeds of the run' * seeded}"
    )


def row(number: int, each: dict[str, Any], earlier: bool) -> list[str]:
    """The cells of a learner."""
    cost = each["cost"]
    cells = [
        f"{number}",
        each["label"],
        interval(each),
        interval(each["behind"]),
        counted(cost["steps"]),
        counted(cost["seconds"]),
        counted(cost["parameters"]),
        "" if cost["state_bytes"] is None else f"{cost['state_bytes'] / 1e6:.2f} MB",
    ]
    if earlier:
        cells.insert(6, counted(cost["earlier_seconds"]))
    return cells


def interval(part: dict[str, Any] | None) -> str:
    """`0.0085 ± 0.0016`, of whatever has a mean and its interval."""
    return spoken({name: part[name] for name in ("mean", "ci95", "seeds") if name in part} if part else None)


def counted(value: float | None) -> str:
    """`70,000`, with a digit after the point where it is small."""
    if value is None:
        return ""
    return f"{value:,.1f}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"


def write_plot(path: Path, found: dict[str, Any]) -> None:
    """The picture of a comparison, as PNG."""
    height = 1.6 + 0.4 * len(found["ranking"])
    pictures.write_figure(path, lambda figure: comparison.draw(figure, found), size=(10.0, height))
