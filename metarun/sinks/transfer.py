"""What is new in metrics.jsonl goes to one sink, once.

A step that a series has in the sink is never sent again: a resumed run writes the lines after its checkpoint anew, and
they have the same numbers. Before a batch is sent the bookmark says so, and afterwards that it has arrived. After a
crash between the two, TensorBoard's files are cut back, MLflow drops what it has, and W&B counts the batch as arrived.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from metarun import config, errors
from metarun.runs import directory, metrics, regular_files, seals
from metarun.sinks import bookmark, registry, series
from metarun.sinks.contract import Opening, Sink


class Copy:
    """The copying of one run to one sink."""

    def __init__(self, run: Path, path: Path, sink: Sink) -> None:
        self.metrics, self.path, self.sink = run / directory.METRICS, path, sink
        self.mark = bookmark.read(path)
        if sink.keeps_halves and self.mark.sending is not None:
            self.mark = replace(self.mark, steps=self.mark.sending, sending=None)
        self.mark = replace(self.mark, facts=sink.flush())
        bookmark.write(path, self.mark)

    def copy_new(self) -> int:
        """Send what is new, batch by batch; return how many rows went."""
        sent = 0
        for batch in metrics.read_on(self.metrics, self.mark.place):
            points, steps = select_new(map(series.make_point, batch.rows), self.mark.steps)
            if points:
                self.send(points, steps)
            tail = batch.end.tail.decode()
            self.mark = replace(self.mark, size=batch.end.size, tail=tail, steps=steps, sending=None)
            bookmark.write(self.path, self.mark)
            sent += len(points)
        return sent

    def copy_result(self) -> int:
        """Send the result of a run that is done; return of how many stages it was new."""
        result = self.metrics.with_name(directory.RESULT)
        if read_status(result.parent) != "done" or not result.is_file():
            return 0
        points, steps = select_new(read_result_points(result), self.mark.steps)
        if points:
            self.send(points, steps)
            self.mark = replace(self.mark, steps=steps, sending=None)
            bookmark.write(self.path, self.mark)
        return len(points)

    def send(self, points: list[series.Point], steps: dict[str, int]) -> None:
        """Send one batch, with a note before it."""
        started = self.mark.time if self.mark.sending is not None else time.time_ns() // 1_000_000
        self.mark = replace(self.mark, sending=steps, time=started)
        bookmark.write(self.path, self.mark)
        self.sink.send(points, started)
        self.mark = replace(self.mark, facts=self.sink.flush())


def read_result_points(file: Path) -> list[series.Point]:
    """Return the points of a result.json.

    Raises:
      DataError: it is damaged.
    """
    try:
        return list(series.make_result_points(regular_files.read_sealed(file)))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        what, remedy = f"the result cannot be read: {error}", "restore the file, or train again"
        raise errors.DataError(what, str(file), remedy) from error


def select_new(
    points: Iterable[series.Point], steps: dict[str, int]
) -> tuple[list[series.Point], dict[str, int]]:
    """Return the points after the last step of their series, and the last steps with them."""
    new, last = [], dict(steps)
    for point in points:
        if point.step > last.get(point.series, 0):
            new.append(point)
            last[point.series] = point.step
    return new, last


@contextmanager
def open_copy(run: Path, name: str, folder: Path | None = None, wait: bool = False) -> Iterator[Copy]:
    """Open a sink for a run; at the end it is told how the run stands.

    Raises:
      MetarunError: there is no run, another process copies, or what the sink needs is missing.
    """
    directory.read_config(run)  # refuses what is no run
    seals.check(run)
    document = config.document(config.load(run / directory.CONFIG))
    path = bookmark.find_path(run, name, folder)
    with bookmark.lock(path, wait):
        sink = registry.open_sink(name, Opening(run, folder, bookmark.read(path).facts, document))
        status = "failed"
        try:
            yield Copy(run, path, sink)
            status = read_status(run)
        finally:
            sink.close(status)


def read_status(run: Path) -> str:
    """Return how the run stands: running, done, preempted, diverged or failed."""
    try:
        return str(regular_files.read_sealed(run / directory.STATUS)["status"])
    except (OSError, ValueError, KeyError):
        return "running"
