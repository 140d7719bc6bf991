"""`metarun init`."""

from pathlib import Path
from typing import Annotated

import typer

from metarun import errors


def init(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="algorithm, model, task, or a config: metarun list configs.")
    ],
    name: Annotated[
        str | None, typer.Argument(help="The name of the new plug-in: letters, digits and _.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="The folder, or the file of a config. Default: here.")
    ] = None,
) -> None:
    """Write a plug-in of your own with its test and a config, or copy a config that comes with metarun."""
    from metarun.config import copies

    if what in copies.KINDS:
        if name is None:
            raise errors.UsageError(
                f"the new {what} has no name", f"metarun init {what}", f"metarun init {what} my_{what}"
            )
        files = copies.write_plugin(what, name, to or Path())
        report_plugin(what, *files)
        return
    if name is not None:
        raise errors.UsageError(
            f"{what} is no kind of plug-in",
            f"metarun init {what} {name}",
            "write algorithm, model or task before the name; a config has one word: metarun init sinusoid/maml",
        )
    file = copies.copy_config(what, to)
    typer.echo(f"Train it: metarun train {file}")
    typer.echo(file)


def report_plugin(kind: str, plugin: Path, test: Path, config: Path) -> None:
    """Print what one does with the new files."""
    typer.echo(f"{plugin}: the {kind}, which works: change it")
    typer.echo(f"{test}: pytest {test} (pip install 'metarun[test]')")
    typer.echo(f"{config}: metarun train {config}")
