"""`metarun online`."""

from typing import Annotated, Any, Literal

import typer

from metarun.cli.arguments import (
    AllowOlder,
    EvaluationOverrides,
    Json,
    Mode,
    Plot,
    RunPath,
    Split,
    Stage,
)

SHOWN = 5  # times that the table has


def online(
    run: RunPath,
    overrides: EvaluationOverrides = None,
    times: Annotated[int, typer.Option(min=1, max=10_000, help="How many times a stream has.")] = 30,
    speed: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="How much of the way to an independent task one time goes, or how likely the task changes.",
        ),
    ] = 0.1,
    stream: Annotated[
        Literal["drift", "switches", "returns"],
        typer.Option(help="Tasks drift, switch to new ones, or switch among few that come back."),
    ] = "drift",
    tasks: Annotated[
        int, typer.Option(min=2, max=1000, help="How many tasks a stream of `returns` has.")
    ] = 3,
    stage: Stage = None,
    split: Split = None,
    mode: Mode = None,
    allow_older: AllowOlder = False,
    as_json: Json = False,
    plot: Plot = None,
) -> None:
    """Follow tasks that change, and measure who keeps up. Writes nothing to the run."""
    from metarun.cli import progress_display, text_tables
    from metarun.finished.finished_run import find_run

    finished = find_run(run, overrides or [], stage=stage, split=split, mode=mode, allow_older=allow_older)
    from metarun.figures import drift_plot
    from metarun.finished import drift

    with progress_display.show_preparation():
        measured = drift.measure(finished, drift.Stream(times, speed, stream, tasks))
    text_tables.print_either(measured, as_json, print_drift)
    if plot is not None:
        drift_plot.write_drift(plot, measured)


def print_drift(measured: dict[str, Any]) -> None:
    """Print a line for each learner and moment: the mean over all times, and some of them."""
    from metarun.cli.text_tables import align, format_mean

    metric, count = measured["metric"], measured["times"]
    times = sorted({round(1 + (count - 1) * place / (SHOWN - 1)) for place in range(SHOWN)})
    rows = [["learner", "support", f"{metric}, all times", *(f"time {time}" for time in times)]]
    for name, moments in measured["learners"].items():
        for moment, columns in moments.items():
            curve = columns[metric]["over_time"]["mean"]
            cells = (f"{curve[time - 1]:.3g}" for time in times)
            rows.append([name, moment, format_mean(columns[metric]), *cells])
    typer.echo(align(rows))
    typer.echo(describe_streams(measured))
    if "pairs" in measured:
        print_adaptive(measured)


def describe_streams(measured: dict[str, Any]) -> str:
    """Return one sentence about the streams."""
    changes = {
        "drift": "each time is {speed:g} of the way to an independent task",
        "switches": "at each time the task is a new one with probability {speed:g}",
        "returns": "at each time the task is another one of {tasks} with probability {speed:g}",
    }
    return (
        f"{measured['streams']} streams of the {measured['split']} split, {measured['mode']}; mean ± 95 % "
        f"confidence interval over streams; {changes[measured['kind']].format(**measured)}"
    )


def print_adaptive(measured: dict[str, Any]) -> None:
    """Print the differences between the adaptive learner and the others, by pairs, and what it chose."""
    from metarun.cli.text_tables import align, format_mean

    metric = measured["metric"]
    rows = [[f"{metric}: adaptive minus", "before", "after"]]
    for name, moments in measured["pairs"].items():
        rows.append([name, *(format_mean(moments[moment][metric]) for moment in ("before", "after"))])
    typer.echo("\n" + align(rows))
    typer.echo(f"paired by stream; the adaptive learner chose: {format_shares(measured['choices'])}")
    if "choices_at_changes" in measured:
        typer.echo(f"when the task had become another one: {format_shares(measured['choices_at_changes'])}")


def format_shares(shares: dict[str, float]) -> str:
    """Return `continue 24%, restart 57%`."""
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
