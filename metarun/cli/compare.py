"""`metarun compare`."""

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer

from metarun import errors
from metarun.cli import completion
from metarun.cli.arguments import Json, Plot
from metarun.cli.text_tables import align, format_count, format_mean, print_either

RANGES = 8  # of numbers in a cell; all of them are in the JSON


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Finished runs, by path, name or `latest`; every stage counts.",
            autocompletion=completion.complete_run,
        ),
    ],
    mode: Annotated[
        str | None, typer.Option(help="inductive or transductive. Default: the first one of the first run.")
    ] = None,
    learner: Annotated[
        str, typer.Option(help="adapted, unadapted, or a number of inner steps that was measured.")
    ] = "adapted",
    metric: Annotated[str | None, typer.Option(help="Default: the first one that is not the loss.")] = None,
    steps_curve: Annotated[
        bool,
        typer.Option("--steps-curve", help="Compare the metric after each number of inner steps instead."),
    ] = False,
    as_json: Json = False,
    plot: Plot = None,
) -> None:
    """Rank runs by paired differences on the same frozen episodes. Writes nothing to the runs.

    With --steps-curve, show how many inner steps each run needs: the adaptation curve of its last stage in its first
    mode, and beside each point of the first run the steps after which every other run is at least as good. The curves
    are there for runs with `evaluation.inner_steps`; a run without inner steps is a level.
    """
    from metarun.runs import catalogue

    paths = [catalogue.resolve(run) for run in runs]
    if not steps_curve:
        rank(paths, mode, learner, metric, as_json, plot)
        return
    if mode is not None or learner != "adapted":
        raise errors.UsageError(
            "the curves are of all measured numbers of inner steps, in the first mode of each run",
            "metarun compare --steps-curve",
            "leave --mode and --learner out",
        )
    show_curves(paths, metric, as_json, plot)


def rank(
    runs: list[Path], mode: str | None, learner: str, metric: str | None, as_json: bool, plot: Path | None
) -> None:
    """Compare runs by one learner of each stage."""
    from metarun.figures import comparison_plot
    from metarun.finished import comparison

    compared = comparison.compare(runs, comparison.Choice(mode, learner, metric))
    print_either(compared, as_json, print_comparison)
    if plot is not None:
        comparison_plot.write_comparison(plot, compared)


def show_curves(runs: list[Path], metric: str | None, as_json: bool, plot: Path | None) -> None:
    """Compare runs by their adaptation curves."""
    from metarun.figures import steps_plot
    from metarun.finished import adaptation

    curves = adaptation.read_curves(runs, metric)
    described = adaptation.describe(curves)
    print_either(described, as_json, print_curves)
    if plot is not None:
        steps_plot.write_curves(plot, curves)


def print_curves(described: dict[str, Any]) -> None:
    """Print a line for each point; in those of the first run also the steps that the others need to be as good."""
    for curve in described["curves"]:
        typer.echo(curve["label"])
        for point in curve["points"]:
            line = f"  {point['inner_steps']:>3} steps  {format_mean(point)}"
            for label, steps in point.get("as_good", {}).items():
                line += f"; {label} {'never' if steps is None else f'after {steps}'}"
            typer.echo(line)
    better = "higher" if described["higher_is_better"] else "lower"
    typer.echo(f"{described['metric']}: {better} is better; mean ± 95 % confidence interval")


def print_comparison(comparison: dict[str, Any]) -> None:
    """Print a line for each learner, best first, and under it what the numbers mean."""
    earlier = any(entry["cost"]["earlier_seconds"] for entry in comparison["ranking"])
    header = ["", "learner", comparison["metric"], "minus the best", "close to", "steps", "seconds"]
    header += ["before"] * earlier + ["parameters", "state"]
    entries = zip(comparison["ranking"], group_alike(comparison), strict=True)
    rows = [make_row(number, *entry, earlier) for number, entry in enumerate(entries, start=1)]
    typer.echo(align([header, *rows]))
    if comparison["left_out"]:
        typer.echo(f"left out, as it has no such learner: {', '.join(comparison['left_out'])}")
    episodes = comparison["episodes"]
    seeded = any("seeds" in entry for entry in comparison["ranking"])
    better = "higher" if comparison["higher_is_better"] else "lower"
    pairs = len(comparison["differences"])
    typer.echo(
        f"{comparison['metric']}: {better} is better; {comparison['mode']}, {comparison['learner']}; "
        f"{episodes['count']} {episodes['split']} episodes ({episodes['hash']}), "
        "mean ± 95 % confidence interval, differences by pairs"
        f"{'; in brackets the interval over the seeds of the run' * seeded}\n"
        "close to: the learners that it cannot be told apart from, by paired tests at 5 %, corrected for "
        f"{pairs} pair{'s' * (pairs != 1)} (Holm)"
    )


def group_alike(comparison: dict[str, Any]) -> list[list[int]]:
    """Return for each learner the numbers, from 1, of the learners that it cannot be told apart from.

    A learner that is not finite has none.
    """
    from metarun.finished.pairwise import LEVEL

    pairs = itertools.combinations(range(len(comparison["ranking"])), 2)  # the order of the differences
    others: list[list[int]] = [[] for _ in comparison["ranking"]]
    for (left, right), difference in zip(pairs, comparison["differences"], strict=True):
        if difference["p_holm"] >= LEVEL:
            others[left].append(right + 1)
            others[right].append(left + 1)
    return [sorted(numbers) for numbers in others]


def format_ranges(numbers: list[int]) -> str:
    """Return `2, 4-6` for sorted whole numbers, with at most RANGES ranges."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return ", ".join([*words[:RANGES], *["…"] * (len(words) > RANGES)])


def make_row(number: int, entry: dict[str, Any], others: list[int], earlier: bool) -> list[str]:
    """Return the cells of a learner."""
    cost = entry["cost"]
    cells = [
        f"{number}",
        entry["label"],
        format_mean(entry),
        format_mean(entry["behind"]),
        format_ranges(others),
        format_count(cost["steps"]),
        format_count(cost["seconds"]),
        format_count(cost["parameters"]),
        "" if cost["state_bytes"] is None else f"{cost['state_bytes'] / 1e6:.2f} MB",
    ]
    if earlier:
        cells.insert(7, format_count(cost["earlier_seconds"]))
    return cells
