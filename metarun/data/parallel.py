"""Work on many small pieces in threads, in order. It pays where the work is done outside Python's lock."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # batches that wait for each thread


def map_batches(
    function: Callable[[list[Item]], Result], items: Iterable[Item], size: int
) -> Iterator[Result]:
    """Yield what `function` gives for each batch of `size` items, in their order.

    The items are taken in the caller's thread, and only a few batches before they are needed. What they or the function
    raise ends the work: batches that wait are dropped, and no thread is left when the generator is closed.
    """
    iterator, threads = iter(items), os.cpu_count() or 1
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        while batch := list(itertools.islice(iterator, size)):
            pending.append(pool.submit(function, batch))
            if len(pending) > AHEAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
