"""`metarun runs`: the list of runs, and their removal."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from metarun import errors
from metarun.cli import completion
from metarun.cli.arguments import Json

if TYPE_CHECKING:
    from metarun.finished.listed_run import ListedRun


class ListFirst(TyperGroup):
    """A group of commands in which `runs` and `runs FOLDER` are `runs list` and `runs list FOLDER`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the command that is left out."""
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


application = typer.Typer(
    cls=ListFirst,
    rich_markup_mode=None,
    help="List the runs of a folder, or remove some. `metarun runs [FOLDER]` is `metarun runs list [FOLDER]`.",
)


@application.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(help="Where the runs are.")] = Path("runs"),
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Only runs with this value, such as algorithm.name=maml, seed=0, status=done or name=omni*.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="A metric, the best first; name, status, step or age; or a config key. Default: age.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs: how each stands, what came out, and the config keys in which runs of one kind differ.

    The result is that of the last stage, adapted, in the first mode, with its 95 % interval. A run is `killed` if its
    process is gone, and `unknown` if its process is on another machine. Age is the time since a run was heard of.
    """
    from metarun.cli import text_tables
    from metarun.finished import listed_run, run_list

    runs = run_list.list_runs(folder, where or [], sort)
    listed = {"folder": str(folder), "runs": [listed_run.describe(run) for run in runs]}
    text_tables.print_either(listed, as_json, lambda _: print_runs(runs, sort))


def print_runs(runs: list["ListedRun"], sort: str | None) -> None:
    """Print a line for each run, and one that counts them."""
    from metarun.cli.text_tables import align
    from metarun.finished.listed_run import FOREIGN

    if runs:
        header = ["run", "status", "step", "result", "age", "differs in"]
        typer.echo(align([header, *(make_row(run, sort) for run in runs)]))
    foreign = sum(run.status.state == FOREIGN for run in runs)
    count = len(runs) - foreign
    others = f", {foreign} folder{'s' * (foreign != 1)} without a run" * (foreign > 0)
    typer.echo(f"{count} run{'s' * (count != 1)}{others}")


def make_row(run: "ListedRun", sort: str | None) -> list[str]:
    """Return the cells of a run. What is wrong with it stands in the last one."""
    from metarun.cli.text_tables import format_mean
    from metarun.finished.listed_run import FOREIGN, choose_headline
    from metarun.finished.run_names import format_keys

    metric = sort if sort in run.result else choose_headline(run)
    result = f"{metric} {format_mean(run.result[metric])}" if metric else ""
    age = "" if run.status.state == FOREIGN else format_age(run.age)
    last = run.problem or format_keys(run.differences)
    return [run.name, run.status.state, format_step(run), result, age, last]


def format_step(run: "ListedRun") -> str:
    """Return `maml 120/600`."""
    if run.status.step is None:
        return ""
    return f"{run.status.stage} {run.status.step:,}{'' if run.steps is None else f'/{run.steps:,}'}"


def format_age(seconds: float) -> str:
    """Return `12 s`, `5 min`, `3 h` or `8 days`."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


@application.command("rm")
def remove(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs, or unique beginnings of names.",
            autocompletion=completion.complete_run,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove runs, after asking. A link, a run that is being written and what is no run are refused.

    A folder with several runs in it names none of them. Nothing is removed if one of the runs is refused.
    """
    from metarun.runs import catalogue, removal, run_status

    paths = list(dict.fromkeys(catalogue.resolve(run, newest=False) for run in runs))
    states = {}
    for path in paths:
        removal.refuse_removal(path)
        states[path] = run_status.read_status(path)
    if not yes:
        ask(states)
    elif unknown := [path for path in paths if states[path].state == "unknown"]:
        what = f"nobody knows whether this run is still being written{format_host(states[unknown[0]])}"
        raise errors.RunDirectoryError(what, str(unknown[0]), "leave --yes out, and answer the question")
    for path in paths:
        removal.remove(path)
        typer.echo(f"removed {path}")


def ask(states: dict[Path, Any]) -> None:
    """Ask whether to remove these runs, and leave with exit code 1 on anything but yes.

    Raises:
      UsageError: there is nobody to ask.
    """
    if not is_terminal():
        remedy = "add --yes if you are sure"
        raise errors.UsageError("there is no terminal to ask at", "metarun runs rm", remedy)
    for path, status in states.items():
        typer.echo(f"{path}  {status.state}{format_host(status) * (status.state == 'unknown')}")
    count = len(states)
    typer.confirm(f"remove {'this run' if count == 1 else f'these {count} runs'} for good?", abort=True)


def is_terminal() -> bool:
    """Return whether somebody can answer."""
    return sys.stdin.isatty()


def format_host(status: Any) -> str:
    """Return where the process of a run was, if that is known."""
    return f", by process {status.pid} on {status.host}" if status.host and status.pid else ""
