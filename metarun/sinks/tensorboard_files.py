"""TensorBoard: event files, written by tensorboardX, which needs neither torch nor TensorFlow.

They lie in RUN/tensorboard, or in FOLDER/<config>/<run>, so that `tensorboard --logdir runs` shows every run by name.
Every session writes a file of its own. What a crash has left behind the last bookmark is cut off.
"""

import os
import time
from pathlib import Path
from typing import Any

from tensorboardX import event_file_writer
from tensorboardX.proto import event_pb2, summary_pb2

from metarun.runs import files
from metarun.sinks.contract import Opening
from metarun.sinks.series import Point

SUFFIX = ".metarun"  # of our files, beside which others may lie


def open_sink(opening: Opening) -> "EventFiles":
    """Open the folder of a run's event files.

    Raises:
      StorageError: it, or a file in it, is a link, or the disk refuses.
    """
    folder = opening.run / "tensorboard"
    if opening.folder is not None:
        folder = opening.folder / opening.group / opening.name
    with files.storage_errors(folder):
        if opening.folder is None:
            files.make_folder(folder, opening.run)
        else:
            folder.mkdir(parents=True, exist_ok=True)
        sizes = opening.facts.get("sizes", {})
        cut_back(folder, sizes)
    return EventFiles(folder, sizes)


def cut_back(folder: Path, sizes: dict[str, int]) -> None:
    """Remove what the bookmark does not know: whole files of ours, and the ends of others."""
    for path in folder.glob(f"*{SUFFIX}"):
        if path.name not in sizes:
            path.unlink()
        elif path.stat().st_size > sizes[path.name]:
            descriptor = files.open_own(path, os.O_WRONLY)
            try:
                os.ftruncate(descriptor, sizes[path.name])
            finally:
                os.close(descriptor)


class EventFiles:
    """The event files of one run. The one of this session begins with the first batch."""

    keeps_halves = False

    def __init__(self, folder: Path, sizes: dict[str, int]) -> None:
        self.folder, self.place, self.sizes = folder, str(folder), sizes
        self.writer: Any = None

    def send(self, points: list[Point], milliseconds: int) -> None:
        """Write one event for each point."""
        with files.storage_errors(self.folder):
            if self.writer is None:
                suffix = f".{os.getpid()}.{len(self.sizes)}{SUFFIX}"
                self.writer = event_file_writer.EventsWriter(str(self.folder / "events"), suffix)
            for point in points:
                values = [
                    summary_pb2.Summary.Value(tag=name, simple_value=value)
                    for name, value in point.values.items()
                ]
                summary = summary_pb2.Summary(value=values)
                self.writer.write_event(
                    event_pb2.Event(wall_time=time.time(), step=point.step, summary=summary)
                )

    def flush(self) -> dict[str, Any]:
        """Write out what is buffered; return the size of each of our files."""
        with files.storage_errors(self.folder):
            if self.writer is not None:
                self.writer.flush()
            self.sizes = {path.name: path.stat().st_size for path in self.folder.glob(f"*{SUFFIX}")}
        return {"sizes": self.sizes}

    def close(self, status: str) -> None:
        """Close the file of this session."""
        if self.writer is not None:
            self.writer.close()
