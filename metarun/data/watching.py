"""Who is told of the progress of long work on data: decoding, which happens deep inside building a task family."""

import contextlib
import contextvars
from collections.abc import Iterator

from metarun.data.sources import Progress

_watcher: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("watcher", default=None)


@contextlib.contextmanager
def watched_by(progress: Progress) -> Iterator[None]:
    """Within the block, `progress` is told."""
    token = _watcher.set(progress)
    try:
        yield
    finally:
        _watcher.reset(token)


def watcher() -> Progress | None:
    """Whoever is to be told now; None where nobody asked."""
    return _watcher.get()
