"""Work in threads, in order."""

import itertools
import threading

import pytest

from metarun.data import parallel


def list_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("decode")}


def test_results_come_in_the_order_of_the_items_whichever_is_done_first():
    second_is_done = threading.Event()

    def work(batch: list[int]) -> list[int]:
        if batch[0] == 0:
            assert second_is_done.wait(60)
        if batch[0] == 3:
            second_is_done.set()
        return [2 * item for item in batch]

    assert list(parallel.map_batches(work, range(8), 3)) == [[0, 2, 4], [6, 8, 10], [12, 14]]


def test_only_a_few_batches_are_taken_before_they_are_needed():
    taken = itertools.count()
    batches = parallel.map_batches(len, (next(taken) for _ in range(10**6)), 1)
    assert next(batches) == 1
    batches.close()
    assert next(taken) < 10**3
    assert not list_threads()


@pytest.mark.parametrize("where", ["items", "work"])
def test_an_error_ends_the_work_and_leaves_no_thread(where):
    def work(batch: list[int]) -> int:
        if where == "work" and 5 in batch:
            raise ValueError("five")
        return sum(batch)

    def items():
        yield from range(6)
        if where == "items":
            raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        list(parallel.map_batches(work, items(), 2))
    assert not list_threads()
