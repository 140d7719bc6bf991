"""The list of commands, and what they share. Heavy imports happen inside the commands, so that --help is quick."""

import logging
from collections.abc import Callable
from typing import Annotated

import typer

import metarun
from metarun.cli import (
    compare,
    data_commands,
    doctor,
    embed,
    evaluate,
    export,
    fewshot,
    init,
    online,
    plugin_list,
    predict,
    report,
    runs,
    schema_export,
    sweep,
    sync,
    table,
    train,
)
from metarun.plain_text import PlainFormatter

HANDLER = "metarun-warnings"  # the name of the handler that prints warnings

# Every command: its name, and the function that typer reads its arguments and its help from.
COMMANDS: dict[str, Callable] = {
    "train": train.train,
    "sweep": sweep.sweep,
    "eval": evaluate.evaluate,
    "predict": predict.predict,
    "fewshot": fewshot.fewshot,
    "embed": embed.embed,
    "export": export.export,
    "online": online.online,
    "compare": compare.compare,
    "table": table.table,
    "report": report.report,
    "sync": sync.sync,
    "list": plugin_list.list_plugins,
    "init": init.init,
    "schema": schema_export.print_schema,
    "doctor": doctor.doctor,
}

application = typer.Typer(
    name="metarun",
    help="Meta-learning experiments from a YAML file: train, evaluate, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, command in COMMANDS.items():
    application.command(name)(command)
application.add_typer(runs.application, name="runs")
application.add_typer(data_commands.application, name="data")


def show_version(wants_version: bool) -> bool:
    """Print the version and leave, if it is asked for."""
    if wants_version:
        typer.echo(f"metarun {metarun.__version__}")
        raise typer.Exit
    return wants_version


@application.callback()
def set_up(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up what all commands share."""
    logger = logging.getLogger("metarun")
    for former in [handler for handler in logger.handlers if handler.get_name() == HANDLER]:
        logger.removeHandler(former)  # of a command before this one in the same process
    handler = logging.StreamHandler()
    handler.set_name(HANDLER)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(PlainFormatter("warning: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    # Orbax, and asyncio below it, print tracebacks of errors that we report ourselves.
    for library in ("absl", "asyncio"):
        logging.getLogger(library).addHandler(logging.NullHandler())
        logging.getLogger(library).propagate = False
