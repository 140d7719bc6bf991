"""The memory that all threads together may decode pictures in."""

import contextlib
import threading
from collections.abc import Iterator

MOST_BYTES = 1 << 30  # held at a time; a piece of work that needs more goes on alone


class MemoryShare:
    """A number of bytes that threads take from, and wait for."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold `size` bytes inside the `with`; all of them, if it is more than there are."""
        size = min(size, self.most)
        with self._changed:
            self._changed.wait_for(lambda: self.held + size <= self.most)
            self.held += size
        try:
            yield
        finally:
            with self._changed:
                self.held -= size
                self._changed.notify_all()


DECODING = MemoryShare(MOST_BYTES)
