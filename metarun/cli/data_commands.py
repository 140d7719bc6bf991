"""`metarun data`: which data sets are there, downloads with a progress bar, checks of digests."""

from typing import TYPE_CHECKING

import typer

from metarun.cli import data_export

if TYPE_CHECKING:
    from metarun.data.downloads import FileReport

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
def fetch(name: str) -> None:
    """Download the public archives of a data set, and check them."""
    from metarun import folders
    from metarun.cli.download_bar import DownloadBar
    from metarun.data import downloads

    with DownloadBar() as show:
        reports = downloads.fetch(name, folders.data_root(), show)
    print_reports(reports)


@application.command("verify")
def verify(name: str) -> None:
    """Compare the files of a data set with the published digests."""
    from metarun import errors, folders
    from metarun.cli.download_bar import DownloadBar
    from metarun.data import downloads

    with DownloadBar() as show:
        reports = downloads.verify(name, folders.data_root(), show)
    print_reports(reports)
    if wrong := [report for report in reports if report.state != "ok"]:
        raise errors.DataError(
            f"{len(wrong)} of {len(reports)} files of {name} are not as published",
            str(folders.data_root() / name),
            f"get them with `metarun data fetch {name}`",
        )


def print_reports(reports: "list[FileReport]") -> None:
    """Print a line for each file."""
    from metarun.cli import text_tables

    typer.echo(text_tables.align([report.file, report.state, report.detail] for report in reports))
