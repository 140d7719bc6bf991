"""`metarun compare`."""

import itertools
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from metarun import errors
from metarun.cli import completion, cost_columns
from metarun.cli.arguments import Json, Plot
from metarun.cli.text_tables import align, format_mean, print_either
from metarun.evaluation import wording

# What `finished.costs.MEASURES` has; that module is heavier than `--help` may be.
Against = Literal["seconds", "flops", "steps", "parameters", "adaptation"]
AGAINST = "With --plot: draw the metric against this cost, in place of the ranking."
BASELINES = "For pictures: compare also with logistic regression on pixels, and on a random network."
WEIGHTS = "With --baselines: where the file of weights of the first run on features lies now."
RANGES = 8  # of numbers in a cell; all of them are in the JSON
CONTROLS = "Train the controls of a config, or of a run's config, and compare the method with them."
PANEL = "With --controls"
SEEDS = "Seeds of every run. Default: the replicas of the config, three at least."
JOBS = "Runs at once, or `devices`. Default: one a GPU; one on a CPU."
CONTROLS_DIR = "The folder of the runs. Default: controls/<config name>-<hash>."
DRY_RUN = "Say what would be trained."


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Finished runs, by path, name or `latest`; every stage counts. With --controls one config or run.",
            autocompletion=completion.complete_run,
        ),
    ],
    mode: Annotated[
        str | None, typer.Option(help="inductive or transductive. Default: the first one of the first run.")
    ] = None,
    learner: Annotated[
        str, typer.Option(help="adapted, unadapted, or a number of inner steps that was measured.")
    ] = "adapted",
    metric: Annotated[
        str | None, typer.Option(help="Default: BLEU for text, else the first one but the loss.")
    ] = None,
    steps_curve: Annotated[
        bool,
        typer.Option("--steps-curve", help="Compare the metric after each number of inner steps instead."),
    ] = False,
    baselines: Annotated[bool, typer.Option("--baselines", help=BASELINES)] = False,
    weights: Annotated[Path | None, typer.Option(help=WEIGHTS)] = None,
    controls: Annotated[bool, typer.Option("--controls", help=CONTROLS)] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help=SEEDS, rich_help_panel=PANEL)] = None,
    jobs: Annotated[str | None, typer.Option(help=JOBS, rich_help_panel=PANEL)] = None,
    controls_dir: Annotated[Path | None, typer.Option(help=CONTROLS_DIR, rich_help_panel=PANEL)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=DRY_RUN, rich_help_panel=PANEL)] = False,
    as_json: Json = False,
    plot: Plot = None,
    against: Annotated[Against | None, typer.Option(help=AGAINST)] = None,
) -> None:
    """Rank runs by paired differences on the same frozen episodes. Adds only ceiling.json, baselines.json to runs.

    Differences are paired by seed and episode; with one seed they say nothing about the noise of training. Where the
    optimum of the task family is known, a row says what the best possible rule reaches; ceiling.json keeps that.
    Baselines that a run keeps are always shown.

    With --controls, train what the config's section `controls` asks for, with several seeds, and compare the method
    with each control. The same command called again goes on where it was.

    With --steps-curve, show how many inner steps each run needs: the adaptation curve of its last stage in its first
    mode, and beside each point of the first run the steps after which every other run is at least as good. The curves
    are there for runs with `evaluation.inner_steps`; a run without inner steps is a level.
    """
    own = {"--seeds": seeds, "--jobs": jobs, "--controls-dir": controls_dir, "--dry-run": dry_run or None}
    if controls:
        from metarun.cli import control_table

        others = {"--plot": plot, "--against": against, "--steps-curve": steps_curve or None}
        others |= {"--baselines": baselines or None, "--weights": weights}
        refuse_options(others | {"--learner": None if learner == "adapted" else learner}, "beside", "out")
        control_table.compare_controls(runs, seeds, jobs, controls_dir, dry_run, mode, metric, as_json)
        return
    refuse_options(own, "without", "out, or add --controls")
    if weights is not None and not baselines:
        what, remedy = "--weights is for the baselines", "add --baselines, or leave --weights out"
        raise errors.UsageError(what, "metarun compare --weights", remedy)
    if not steps_curve:
        rank(runs, mode, learner, metric, as_json, plot, against, baselines, weights)
        return
    refuse_beside_curves(against is not None, mode is not None or learner != "adapted" or baselines)
    show_curves(runs, metric, as_json, plot)


def refuse_beside_curves(has_cost: bool, has_choice: bool) -> None:
    """Raise UsageError if an option is set that does nothing beside --steps-curve.

    Args:
      has_cost: --against; has_choice: --mode, --learner or --baselines.
    """
    if has_cost:
        raise errors.UsageError(
            "an adaptation curve is drawn over inner steps",
            "metarun compare --steps-curve --against",
            "leave --against out, or --steps-curve",
        )
    if has_choice:
        raise errors.UsageError(
            "the curves are of all measured numbers of inner steps, in the first mode of each run",
            "metarun compare --steps-curve",
            "leave --mode, --learner and --baselines out",
        )


def refuse_options(values: dict[str, Any], word: str, end: str) -> None:
    """Raise UsageError if an option is set that does nothing beside, or without, --controls."""
    for option, value in values.items():
        if value is not None:
            what = f"{option} means nothing {word} --controls"
            raise errors.UsageError(what, f"metarun compare {option}", f"leave {option} {end}")


def rank(
    runs: list[Path],
    mode: str | None,
    learner: str,
    metric: str | None,
    as_json: bool,
    plot: Path | None,
    against: str | None = None,
    baselines: bool = False,
    weights: Path | None = None,
) -> None:
    """Compare runs by one learner of each stage.

    Args:
      baselines: compute the baselines for pictures if they are not kept yet.
      weights: where the file lies now that they need; None: where the run's config says.
      against: the cost that the picture shows the metric against; None: it shows the ranking.
    """
    from metarun.figures import comparison_plot, cost_plot
    from metarun.finished import comparison
    from metarun.runs import catalogue

    if against is not None and plot is None:
        what = "--against says what the picture is drawn against, and there is no picture"
        raise errors.UsageError(what, "metarun compare --against", f"add --plot {against}.png")
    paths = [catalogue.resolve(run) for run in runs]
    compared = comparison.compare(paths, comparison.Choice(mode, learner, metric, baselines, weights))
    print_either(compared, as_json, print_comparison)
    if plot is not None and against is not None:
        cost_plot.write_costs(plot, compared, against)
    elif plot is not None:
        comparison_plot.write_comparison(plot, compared)


def show_curves(runs: list[Path], metric: str | None, as_json: bool, plot: Path | None) -> None:
    """Compare runs by their adaptation curves."""
    from metarun.figures import steps_plot
    from metarun.finished import adaptation
    from metarun.runs import catalogue

    curves = adaptation.read_curves([catalogue.resolve(run) for run in runs], metric)
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
    columns = cost_columns.CostColumns(comparison)
    header = ["", "learner", comparison["metric"], "minus the best", "close to", *columns.list_names()]
    entries = zip(comparison["ranking"], group_alike(comparison), strict=True)
    rows = [
        [*make_row(place + 1, *entry), *columns.make_cells(place, entry[0]["cost"])]
        for place, entry in enumerate(entries)
    ]
    if reached := comparison["ceiling"]:
        blank = [""] * (len(header) - 4)
        rows.append(["", wording.BEST_POSSIBLE, format_mean(reached), format_mean(reached["behind"]), *blank])
    typer.echo(align([header, *rows]))
    if comparison["left_out"]:
        typer.echo(f"left out, as it has no such learner: {', '.join(comparison['left_out'])}")
    for line in columns.explain():
        typer.echo(line)
    for note in comparison["notes"]:
        typer.echo(note)
    episodes = comparison["episodes"]
    seeded = any("seeds" in entry for entry in comparison["ranking"])
    over = " over seeds and episodes" if seeded else " over episodes"
    better = "higher" if comparison["higher_is_better"] else "lower"
    pairs = len(comparison["differences"])
    typer.echo(
        f"{comparison['metric']}: {better} is better; {comparison['mode']}, {comparison['learner']}; "
        f"{episodes['count']} {episodes['split']} episodes ({episodes['hash']}), "
        f"mean ± 95 % confidence interval{over}, differences by pairs"
        f"{'; in brackets the interval over the seeds alone' * seeded}\n"
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


def make_row(number: int, entry: dict[str, Any], others: list[int]) -> list[str]:
    """Return the cells of a learner, without those of its cost."""
    return [
        f"{number}",
        entry["label"],
        format_mean(entry),
        format_mean(entry["behind"]),
        format_ranges(others),
    ]
