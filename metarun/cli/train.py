"""`metarun train`."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarun import errors, signals
from metarun.cli import completion
from metarun.cli.arguments import Overrides

if TYPE_CHECKING:
    from metarun.config import RunConfig


def train(
    config_file: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML file, or the name of one: metarun list configs. With --resume also a run.",
            autocompletion=completion.complete_config,
        ),
    ],
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="Default: runs/<config name>/<time>.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run: with RUN in the place of CONFIG nothing else is needed; "
            "with CONFIG it is --run-dir, or the newest run of this config.",
        ),
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

    if cost and not dry_run:
        raise errors.UsageError(
            "--cost is a part of --dry-run", "metarun train", "add --dry-run, or leave --cost out"
        )
    taken_up = find_resumed(config_file, run_dir) if resume else None
    config_file = taken_up / "config.yaml" if taken_up else config.find_file(config_file)
    run_config = config.load(config_file, overrides or [])
    if print_config:
        typer.echo(config.to_yaml(run_config), nl=False)
        return
    if dry_run:
        try_out(run_config, cost)
    else:
        carry_out(run_config, name_config(config_file), taken_up or run_dir, resume)


def carry_out(run_config: "RunConfig", name: str, path: Path | None, resume: bool) -> None:
    """Train, measure, and print the result.

    Args:
      name: of the config, below which runs lie.
      path: of the run; None: the newest one of this name if it is resumed, else a new one.
    """
    from metarun.hosts import guardian, placement

    place = placement.find_placement(run_config.accelerator.hosts, os.environ)
    if place is not None:
        guardian.guard(str(place))  # before jax is imported: it goes on in a child
    from metarun.cli import progress_display, text_tables
    from metarun.data import observers
    from metarun.runs import directory

    path = path or (resume and directory.find_newest(name)) or directory.make_path(name)
    from metarun import experiment
    from metarun.hosts import meeting

    with progress_display.show_progress() as progress, observers.report_to(progress.preparing):
        processes = meeting.join(run_config.accelerator.hosts)
        with name_way_on(path, alone=place is None):
            result = experiment.train(run_config, path, resume, sys.argv, progress, processes)
    if not processes.is_first:
        return
    text_tables.print_result(result)
    typer.echo(result["run"])


def try_out(run_config: "RunConfig", cost: bool) -> None:
    """Build everything and print what would be trained, or what it would cost. Trains nothing."""
    from metarun import experiment
    from metarun.cli import cost_report, progress_display
    from metarun.data import observers

    if cost:
        with progress_display.show_progress() as progress, observers.report_to(progress.preparing):
            costs = experiment.measure_cost(run_config, progress)
        cost_report.print_costs(costs)
    else:
        with progress_display.show_preparation():
            described = experiment.describe_dry_run(run_config)
        typer.echo(described)


def find_resumed(path: Path, run_dir: Path | None) -> Path | None:
    """Return the run that `train --resume PATH` goes on with; None: the path is a config.

    Raises:
      UsageError: several runs have the name, or there is a --run-dir beside the run.
      CheckpointError: the path is neither a run nor a config.
    """
    from metarun import config
    from metarun.runs import catalogue

    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return None
    try:
        run = catalogue.resolve(path)
    except errors.CheckpointError as missing:
        try:
            is_config = config.find_file(path).is_file()
        except errors.ConfigError:
            raise missing from None
        if is_config:
            return None
        raise
    if run_dir is not None:
        what, remedy = "a run is resumed where it lies", "leave --run-dir out"
        raise errors.UsageError(what, f"--resume {path} --run-dir {run_dir}", remedy)
    return run


@contextmanager
def name_way_on(path: Path, alone: bool) -> Iterator[None]:
    """Add a note to the exception that stops a run: the command that goes on with it.

    Args:
      alone: whether this process trains alone; else all processes have to be started again.
    """
    try:
        yield
    except (signals.Stopped, KeyboardInterrupt) as stop:
        if (path / "config.yaml").is_file():
            command = f"metarun train --resume {shlex.quote(str(path))}"
            way_on = command if alone else "--resume, in all processes together"
            stop.add_note(way_on)
            if isinstance(stop, KeyboardInterrupt):  # typer ends the command itself, without a word
                print(f"interrupted: go on from the last checkpoint with {way_on}", file=sys.stderr)
        raise


def name_config(path: Path) -> str:
    """Return the name of a config in the runs folder: its path below a folder `configs`, with dashes, or its stem."""
    parts = path.with_suffix("").parts
    below = parts[::-1].index("configs") if "configs" in parts else 1
    parts = parts[len(parts) - below :]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(parts)).strip("-_") or "run"
