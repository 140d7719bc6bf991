"""`metarun report`."""

import time
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from metarun.cli import completion

PAUSE = 10  # seconds between two looks at a run that trains


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Runs, finished or not, and sweeps.",
            autocompletion=completion.complete_run,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Renew the file while a run trains; the open page follows.")
    ] = False,
) -> None:
    """Write one HTML file about a run, or about several beside one another. Needs metarun[report].

    The file needs no network: plots, pictures and numbers are inside. Writes nothing to the runs.
    """
    from metarun.reports import page, run_record, sweep_section
    from metarun.runs import catalogue

    page.require_packages()
    page.check_place(out)
    given = list(dict.fromkeys(runs))
    folders = [path for path in given if sweep_section.is_sweep(path)]
    paths = list(dict.fromkeys(catalogue.resolve(path) for path in given if path not in folders))
    goes_on, shown = True, False
    while goes_on:
        if shown:
            time.sleep(PAUSE)
        records = run_record.read_records(paths)
        sweeps = [
            sweep_section.read_sweep(path, f"sweep-{number}") for number, path in enumerate(folders, start=1)
        ]
        goes_on = watch and any(
            [entry.may_go_on for entry in records] + [entry.may_go_on for entry in sweeps]
        )
        page.write_page(out, page.render(records, sweeps, refresh=PAUSE if goes_on else None))
        if not shown:
            typer.echo(out)
            show_page(out, open_)
        shown = True


def show_page(path: Path, wanted: bool) -> None:
    """Open the page in a browser, if that is wanted and there is one."""
    if wanted and not webbrowser.open(path.resolve().as_uri()):
        typer.echo("no browser was found: open the file by hand", err=True)
