"""What `metarun compare CONFIG --controls` does and prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from metarun import errors
from metarun.cli.text_tables import align, format_count, format_mean, print_either

if TYPE_CHECKING:
    from metarun.sweeps.controls import Plan

NEIGHBOURS = ["stage", "control", "nearest task shares", "method", "control", "difference", "p", "so"]
AHEAD = {"method": "the method is ahead", "control": "the control is ahead", None: "cannot be told apart"}


def compare_controls(
    arguments: list[Path],
    seeds: int | None,
    jobs: str | None,
    place: Path | None,
    dry_run: bool,
    mode: str | None,
    metric: str | None,
    as_json: bool,
) -> None:
    """Train the method and its controls as far as they are not trained, and print the table.

    Args:
      arguments: a config or a run, then overrides.
      place: the folder of the runs; None: controls/<config name>-<hash>.

    Raises:
      MetarunError: what is wrong with the config, or what failed.
    """
    from metarun.cli import sweep
    from metarun.sweeps import controls

    file, overrides = read_arguments(arguments)
    plan = controls.make_plan(file, overrides, seeds)
    folder = place or Path("controls") / f"{name_plan(file)}-{plan.hash()}"
    if dry_run:
        describe(plan, folder)
        return
    from metarun.sweeps import control_runs

    opened = control_runs.open_directory(folder, plan)
    sweep.say(f"controls {folder}: {sweep.count_nouns(len(plan.untrained), 'run')}, {format_seeds(plan)}")
    with sweep.stopping():
        control_runs.train(opened, plan, sweep.read_jobs(jobs), make_report())
    print_either(control_runs.compare(opened, plan, mode, metric), as_json, print_table)
    if not as_json:
        typer.echo(folder)


def read_arguments(arguments: list[Path]) -> tuple[Path, list[str]]:
    """Return the config file or the run directory, and the overrides.

    Raises:
      UsageError: there are several configs or runs.
      MetarunError: there is no such config, and no such run.
    """
    first, *rest = arguments
    overrides = [str(argument) for argument in rest]
    if extra := [text for text in overrides if "=" not in text]:
        what = f"the controls are those of one config or one run, and {extra[0]} is another"
        raise errors.UsageError(
            what, "metarun compare --controls", "call it once for each; overrides are KEY=VALUE"
        )
    from metarun import config
    from metarun.runs import catalogue

    if first.is_dir():
        return catalogue.resolve(first), overrides
    try:
        return config.find_file(first), overrides
    except errors.ConfigError as missing:
        try:
            return catalogue.resolve(first), overrides
        except errors.CheckpointError:
            raise missing from None


def name_plan(file: Path) -> str:
    """Return the name of a config, or of the config that a run is of."""
    from metarun.cli.train import name_config
    from metarun.finished import run_names

    return run_names.name_config(file) if file.is_dir() else name_config(file)


def make_report() -> Any:
    """Make the lines that tell when a run starts and ends."""
    from metarun.cli.sweep import say
    from metarun.sweeps.workers import Report

    return Report(
        lambda program, slot: say(
            f"{program.name}: trains" + (f" on device {slot.device}" if slot.device else "")
        ),
        lambda program, seconds, outcome: say(f"{program.name}: {outcome} after {seconds:.1f} s"),
        lambda programs: say("waiting for what other processes train"),
    )


def format_seeds(plan: "Plan") -> str:
    """Return the seeds of every run."""
    from metarun.cli.sweep import count_nouns

    run_config = plan.method.config
    last = run_config.seed + run_config.replicas - 1
    which = f"{run_config.seed}" + (f" to {last}" if last > run_config.seed else "")
    return f"{count_nouns(run_config.replicas, 'seed')} ({which})"


def describe(plan: "Plan", folder: Path) -> None:
    """Print what would be trained, what it would cost, and where. Builds every run and trains none."""
    from metarun import experiment
    from metarun.cli import progress_display
    from metarun.sweeps import shared_stages

    typer.echo(f"{folder}: {format_seeds(plan)} side by side in each run")
    for run in plan.runs:
        known = not run.against and plan.trained
        state = f" (trained before: {plan.trained})" if known else ""
        against = f", against {', '.join(run.against)}" if run.against else ""
        shared = [stage.name for stage in run.config.stages[: shared_stages.count_shared(plan, run)]]
        taken = f"; takes {', '.join(shared)} from the method" if shared else ""
        typer.echo(f"{run.name}: {run.says}; stage {run.stage}{against}{taken}{state}")
        if not known:
            with progress_display.show_preparation():
                described = experiment.describe_dry_run(run.config)
            typer.echo("\n".join(f"  {line}" for line in described.splitlines()))


def print_table(whole: dict[str, Any]) -> None:
    """Print the method, its controls, and what their differences say."""
    metric = whole["metric"]
    header = ["run", "stage", metric, "steps", "seconds", "before", "FLOPs", "parameters", "what it is"]
    ceiling = whole["ceiling"]
    best = [["best possible", "", format_mean(ceiling), *[""] * 6]] if ceiling else []
    typer.echo(align([header, *map(make_row, whole["runs"]), *best]))
    rows = [
        [
            f"{line['of']} − {line['minus']}",
            format_mean({key: line[key] for key in ("mean", "ci95")}),
            f"{line['p_holm']:.2g}",
            AHEAD[line["ahead"]],
        ]
        for line in whole["differences"]
    ]
    typer.echo("\n" + align([["difference", metric, "p", "so"], *rows]))
    if whole["neighbours"]:
        typer.echo("\n" + align([NEIGHBOURS, *map(make_neighbour_row, whole["neighbours"])]))
    for name in whole["diverged"]:
        typer.echo(f"{name} has diverged, and is left out")
    typer.echo("\n" + "\n".join([*whole["notes"], make_note(whole)]))


def make_neighbour_row(line: dict[str, Any]) -> list[str]:
    """Return the cells of one fact."""
    shares = [f"{line[key]:.4f}" for key in ("method_share", "control_share")]
    difference = format_mean({key: line[key] for key in ("mean", "ci95")})
    return [
        line["of"],
        line["control"],
        line["fact"],
        *shares,
        difference,
        f"{line['p_holm']:.2g}",
        AHEAD[line["ahead"]],
    ]


def make_row(line: dict[str, Any]) -> list[str]:
    """Return the cells of one run."""
    from metarun.finished.costs import measure

    cost = line["cost"]
    return [
        line["name"],
        line["stage"],
        format_mean(line),
        *(format_count(cost[key]) for key in ("steps", "seconds", "earlier_seconds")),
        "" if cost["flops"] is None else f"{cost['flops']:.3g}",
        format_count(measure(cost, "parameters")),
        line["says"],
    ]


def make_note(whole: dict[str, Any]) -> str:
    """Return what the numbers mean."""
    episodes, seeds = whole["episodes"], whole["seeds"]
    better = "higher" if whole["higher_is_better"] else "lower"
    over = f"{seeds} seeds, differences by pairs of seed and episode"
    if seeds == 1:
        over = "one seed: says nothing about training noise; differences by pairs of episodes"
    alone = ", in brackets over the seeds alone" * (seeds > 1)
    return (
        f"{whole['metric']}: {better} is better; {whole['mode']}; {episodes['count']} {episodes['split']} episodes "
        f"({episodes['hash']}), {over}\nmean ± 95 % interval{alone}; p corrected for all lines of a "
        "table together (Holm); before: seconds of the stages that it stands on, whose FLOPs and parameters count, too"
    )
