"""The progress of downloads and of decoding, file by file."""

import sys


class DownloadBar:
    """A callback (done, total, description) that shows a bar on a terminal, and nothing in a pipe."""

    def __enter__(self):
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

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
