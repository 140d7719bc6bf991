"""`metarun data`: which data sets are there, downloads with a progress bar, checks of digests."""

from typing import TYPE_CHECKING, Annotated

import typer

from metarun.cli import completion, data_export

if TYPE_CHECKING:
    from metarun.data.downloads import FileReport

Name = Annotated[
    str,
    typer.Argument(help="A data set: see metarun data list.", autocompletion=completion.complete_data_set),
]

application = typer.Typer(no_args_is_help=True, help="Data sets: list, fetch, verify, export.")
application.add_typer(data_export.application, name="export")


@application.command("list")
def list_data() -> None:
    """List the data sets, and say whether their files are there."""
    from metarun import folders
    from metarun.cli import text_tables
    from metarun.data import datasets

    root = folders.data_root()
    rows = [
        [name, source.file, "there" if source.path(root).is_file() else "missing"]
        for name in datasets.list_names()
        for source in datasets.load_module(name).SOURCES
    ]
    typer.echo(text_tables.align([["data set", "file", "state"], *rows]))
    typer.echo(f"in {root} (METARUN_DATA)")


@application.command("fetch")
def fetch(name: Name) -> None:
    """Download the public archives of a data set, and check them."""
    from metarun import folders
    from metarun.cli.download_bar import DownloadBar
    from metarun.data import downloads

    with DownloadBar() as show:
        reports = downloads.fetch(name, folders.data_root(), show)
    print_reports(reports)


@application.command("verify")
def verify(name: Name) -> None:
    """Compare the files of a data set with the published digests."""
    from metarun import errors, folders
    from metarun.cli.download_bar import DownloadBar
    from metarun.data import downloads

    with DownloadBar() as show:
        reports = downloads.verify(name, folders.data_root(), show)
    print_reports(reports)
    if faults := describe_faults(name, reports):
        remedy = f"get them with `metarun data fetch {name}`"
        raise errors.DataError(faults, str(folders.data_root() / name), remedy)


def describe_faults(name: str, reports: "list[FileReport]") -> str:
    """Return `1 of 3 files of mnist is missing, 2 are not as published`; "" if all files are right."""
    states = [report.state for report in reports]
    words = {"missing": "missing", "altered": "not as published"}
    counts = [(states.count(state), text) for state, text in words.items() if state in states]
    clauses = [f"{'is' if count == 1 else 'are'} {text}" for count, text in counts]
    if not clauses:
        return ""
    faults = f"{counts[0][0]} of {len(reports)} files of {name} {clauses[0]}"
    return faults if len(counts) == 1 else f"{faults}, {counts[1][0]} {clauses[1]}"


def print_reports(reports: "list[FileReport]") -> None:
    """Print a line for each file."""
    from metarun.cli import text_tables

    typer.echo(text_tables.align([report.file, report.state, report.detail] for report in reports))
