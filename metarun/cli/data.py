"""`metarun data`: what is there, downloads with a progress bar, digests."""

import sys

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from metarun import errors, locations
from metarun.cli import tables
from metarun.data import datasets, fetching


def print_list() -> None:
    """Each data set, its files, and whether they are in the data folder."""
    root = locations.data_root()
    rows = [
        [name, source.file, "there" if source.path(root).is_file() else "missing"]
        for name in datasets.names()
        for source in datasets.module(name).SOURCES
    ]
    typer.echo(tables.aligned([["data set", "file", "state"], *rows]))
    typer.echo(f"in {root} (METARUN_DATA)")


def fetch(name: str) -> None:
    """Download what is missing, and say what is there then."""
    with bar() as show:
        reports = fetching.fetch(name, locations.data_root(), show)
    print_reports(reports)


def verify(name: str) -> None:
    """Compare contents with digests.

    Raises:
      DataError: a file is missing or altered.
    """
    with bar() as show:
        reports = fetching.verify(name, locations.data_root(), show)
    print_reports(reports)
    if wrong := [report for report in reports if report.state != "ok"]:
        raise errors.DataError(
            f"{len(wrong)} of {len(reports)} files of {name} are not as published",
            str(locations.data_root() / name),
            f"get them with `metarun data fetch {name}`",
        )


def print_reports(reports: list[fetching.FileReport]) -> None:
    """A line a file."""
    typer.echo(tables.aligned([report.file, report.state, report.detail] for report in reports))


class bar:
    """A callback (done, total, description) that shows a bar on a terminal and nothing in a pipe."""

    def __enter__(self):
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        self.progress = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self.progress.start()
        self.lines = {}
        return self.show

    def show(self, done: int, total: int, description: str) -> None:
        if description not in self.lines:
            self.lines[description] = self.progress.add_task(description, total=total or None)
        self.progress.update(self.lines[description], completed=done)

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
