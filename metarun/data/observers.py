"""Observers of long work on data. Decoding happens deep inside building a task family, and reports to them."""

import contextlib
import contextvars
from collections.abc import Iterator

from metarun.data.sources import Progress

_observer: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("observer", default=None)


@contextlib.contextmanager
def report_to(progress: Progress) -> Iterator[None]:
    """Call `progress` for all work inside the `with`."""
    token = _observer.set(progress)
    try:
        yield
    finally:
        _observer.reset(token)


def current_observer() -> Progress | None:
    """Return the innermost observer; None outside `report_to`."""
    return _observer.get()
