"""`metarun compare`: the comparison as a table, and as a picture."""

import itertools
from pathlib import Path
from typing import Any

import typer

from metarun import comparison
from metarun.cli.tables import aligned, spoken
from metarun.runs import pictures

RANGES = 8  # of numbers in a cell; all of them are in the JSON


def print_comparison(found: dict[str, Any]) -> None:
    """A line a learner, best first, and under it what the numbers mean."""
    earlier = any(each["cost"]["earlier_seconds"] for each in found["ranking"])
    header = ["", "learner", found["metric"], "minus the best", "close to", "steps", "seconds"]
    header += ["before"] * earlier + ["parameters", "state"]
    pairs = zip(found["ranking"], alike(found), strict=True)
    rows = [row(number, *pair, earlier) for number, pair in enumerate(pairs, start=1)]
    typer.echo(aligned([header, *rows]))
    if found["left_out"]:
        typer.echo(f"left out, as it has no such learner: {', '.join(found['left_out'])}")
    episodes = found["episodes"]
    seeded = any("seeds" in each for each in found["ranking"])
    better = "higher" if found["higher_is_better"] else "lower"
    typer.echo(
        f"{found['metric']}: {better} is better; {found['mode']}, {found['learner']}; {episodes['count']} "
        f"{episodes['split']} episodes ({episodes['hash']}), mean ± 95 % confidence interval, differences by pairs"
        f"{'; in brackets the interval over the seeds of the run' * seeded}\n"
        "close to: the learners that it cannot be told apart from, as the interval of the difference has zero in it"
    )


def alike(found: dict[str, Any]) -> list[list[int]]:
    """Of every learner the numbers, from 1, of those that it cannot be told apart from; of one not finite none."""
    pairs = itertools.combinations(range(len(found["ranking"])), 2)  # the order of the differences
    others: list[list[int]] = [[] for _ in found["ranking"]]
    for (left, right), difference in zip(pairs, found["differences"], strict=True):
        if abs(difference["mean"]) <= difference["ci95"]:
            others[left].append(right + 1)
            others[right].append(left + 1)
    return [sorted(each) for each in others]


def ranges(numbers: list[int]) -> str:
    """`2, 4-6` of sorted whole numbers, at most RANGES parts of it."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    words = [f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts]
    return ", ".join([*words[:RANGES], *["…"] * (len(words) > RANGES)])


def row(number: int, each: dict[str, Any], others: list[int], earlier: bool) -> list[str]:
    """The cells of a learner."""
    cost = each["cost"]
    cells = [
        f"{number}",
        each["label"],
        interval(each),
        interval(each["behind"]),
        ranges(others),
        counted(cost["steps"]),
        counted(cost["seconds"]),
        counted(cost["parameters"]),
        "" if cost["state_bytes"] is None else f"{cost['state_bytes'] / 1e6:.2f} MB",
    ]
    if earlier:
        cells.insert(7, counted(cost["earlier_seconds"]))
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
