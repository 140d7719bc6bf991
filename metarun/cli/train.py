"""`metarun train`."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from metarun import errors
from metarun.cli.arguments import Overrides


def train(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")],
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="Default: runs/<config name>/<time>.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run directory, or the newest run of this config.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the config, build everything, and train nothing.")
    ] = False,
    cost: Annotated[
        bool,
        typer.Option("--cost", help="With --dry-run: compile, take ten steps, and say what training costs."),
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved config, and do nothing.")
    ] = False,
) -> None:
    """Meta-train, then evaluate. The last line of stdout is the run directory."""
    from metarun import config
    from metarun.hosts import guardian, placement

    if cost and not dry_run:
        raise errors.UsageError(
            "--cost is a part of --dry-run", "metarun train", "add --dry-run, or leave --cost out"
        )
    run_config = config.load(config_file, overrides or [])
    if print_config:
        typer.echo(config.to_yaml(run_config), nl=False)
        return
    place = None if dry_run else placement.find_placement(run_config.accelerator.hosts, os.environ)
    if place is not None:
        guardian.guard(str(place))  # before jax is imported: it goes on in a child
    from metarun.cli import cost_report, progress_display, text_tables
    from metarun.data import observers
    from metarun.runs import directory

    name = name_config(config_file)
    path = run_dir or (resume and directory.find_newest(name)) or directory.make_path(name)
    from metarun import experiment
    from metarun.hosts import meeting

    if cost:
        with progress_display.show_progress() as progress, observers.report_to(progress.preparing):
            costs = experiment.measure_cost(run_config, progress)
        cost_report.print_costs(costs)
        return
    if dry_run:
        typer.echo(experiment.describe_dry_run(run_config))
        return
    with progress_display.show_progress() as progress, observers.report_to(progress.preparing):
        processes = meeting.join(run_config.accelerator.hosts)
        result = experiment.train(run_config, path, resume, sys.argv, progress, processes)
    if not processes.is_first:
        return
    text_tables.print_result(result)
    typer.echo(result["run"])


def name_config(path: Path) -> str:
    """Return the name of a config in the runs folder: its path below a folder `configs`, with dashes, or its stem."""
    parts = path.with_suffix("").parts
    below = parts[::-1].index("configs") if "configs" in parts else 1
    parts = parts[len(parts) - below :]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(parts)).strip("-_") or "run"
