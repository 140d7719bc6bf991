"""`metarun train`."""

import contextlib
import os
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
from metarun.folders import name_config

if TYPE_CHECKING:
    from metarun.config import RunConfig


def train(
    config_file: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML file, or the name of one: metarun list configs. With --resume or --extend a run.",
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
    extend: Annotated[
        bool,
        typer.Option(
            "--extend",
            help="A new run that goes on with the finished RUN, in the place of CONFIG, to training.steps=N.",
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
    if cost and not dry_run:
        raise errors.UsageError(
            "--cost is a part of --dry-run", "metarun train", "add --dry-run, or leave --cost out"
        )
    if resume and extend:
        what, remedy = "a run is either resumed or extended", "leave --resume or --extend out"
        raise errors.UsageError(what, f"metarun train --resume --extend {config_file}", remedy)
    taken_up = find_resumed(config_file, run_dir) if resume else None
    extended = find_extended(config_file) if extend else None
    if extended is not None:
        run_config, name = load_longer(extended, overrides or [])
    else:
        run_config, name = load(taken_up / "config.yaml" if taken_up else config_file, overrides or [])
    if print_config:
        show(run_config)
    elif dry_run:
        try_out(run_config, cost, extended, taken_up)
    else:
        carry_out(run_config, name, taken_up or run_dir, resume, extended)


def load(config_file: Path, overrides: list[str]) -> "tuple[RunConfig, str]":
    """Return the config of a file, and the name of the folder of its runs."""
    from metarun import config
    from metarun.runs import stage_reference

    file = config.find_file(config_file)
    return config.load(file, overrides, stage_reference.find_stage), name_config(file)


def show(run_config: "RunConfig") -> None:
    """Print the resolved config."""
    from metarun import config

    typer.echo(config.to_yaml(run_config), nl=False)


def carry_out(
    run_config: "RunConfig", name: str, path: Path | None, resume: bool, extended: Path | None
) -> None:
    """Train, measure, and print the result.

    Args:
      name: of the config, below which runs lie.
      path: of the run; None: the newest one of this name if it is resumed, else a new one.
      extended: the finished run that it goes on with; None: there is none.
    """
    from metarun.hosts import guardian, placement

    place = placement.find_placement(run_config.accelerator.hosts, os.environ)
    if place is not None:
        guardian.guard(str(place))  # before jax is imported: it goes on in a child
    from metarun.cli import progress_display, text_tables
    from metarun.data import observers
    from metarun.runs import directory, new_run

    path = path or (directory.find_newest(name) if resume else None)
    from metarun import experiment
    from metarun.hosts import meeting

    with progress_display.show_progress() as progress, observers.report_to(progress.preparing):
        processes = meeting.join(run_config.accelerator.hosts)
        # The first process makes the folder, and the others get its path from it.
        is_new = path is None and processes.is_first
        with new_run.hold_folder(name) if is_new else contextlib.nullcontext(path) as held:
            path = held or Path(os.devnull)
            with name_way_on(path, alone=place is None):
                result = experiment.train(run_config, path, resume, sys.argv, progress, processes, extended)
    if not processes.is_first:
        return
    text_tables.print_result(result)
    typer.echo(result["run"])


def try_out(run_config: "RunConfig", cost: bool, extended: Path | None, resumed: Path | None) -> None:
    """Build everything and print what would be trained, or what it would cost. Trains nothing.

    Args:
      extended: the finished run that it would go on with; resumed: the run that it would go on in. None: there is none.
    """
    from metarun import experiment
    from metarun.cli import cost_report, progress_display
    from metarun.data import observers

    if cost:
        with progress_display.show_progress() as progress, observers.report_to(progress.preparing):
            costs = experiment.measure_cost(run_config, progress)
        cost_report.print_costs(costs)
    else:
        with progress_display.show_preparation():
            described = experiment.describe_dry_run(run_config, extended, resumed)
        typer.echo(described)


def find_resumed(path: Path, run_dir: Path | None) -> Path | None:
    """Return the run that `train --resume PATH` goes on with; None: the path is a config.

    Raises:
      UsageError: several runs have the name, or there is a --run-dir beside the run.
      CheckpointError: the path is neither a run nor a config, or the run's config is not the one that it has trained
        with.
    """
    from metarun import config
    from metarun.runs import catalogue, seals

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
    seals.check(run)
    return run


def find_extended(path: Path) -> Path:
    """Return the run that `train --extend PATH` goes on with.

    Raises:
      UsageError: the path is a checkpoint, or several runs have the name.
      CheckpointError: there is no such run.
    """
    from metarun.runs import stage_reference

    run, stage, _ = stage_reference.find_stage(str(path))
    if stage is not None:
        what, remedy = "a run is extended from its end, and not from a stage or a checkpoint", f"give {run}"
        raise errors.UsageError(what, f"--extend {path}", remedy)
    return run


def load_longer(extended: Path, overrides: list[str]) -> "tuple[RunConfig, str]":
    """Return the config of a run that goes on with another one, and the name of the config."""
    from metarun.config import extension
    from metarun.runs import directory

    directory.read_config(extended)
    run_config = extension.load(extended / directory.CONFIG, overrides)
    return run_config, extended.parent.name if directory.has_stamp(extended) else extended.name


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
