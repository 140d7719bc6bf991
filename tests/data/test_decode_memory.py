"""The memory that threads share while they decode."""

import threading

from metarun.data import decode_memory


def test_threads_never_hold_more_than_there_is_and_all_come_to_their_turn():
    share, most_seen, done = decode_memory.MemoryShare(10), [], []

    def work(size: int) -> None:
        with share.hold(size):
            most_seen.append(share.held)
            threading.Event().wait(0.001)
        done.append(size)

    sizes = [1, 9, 4, 25, 6, 10, 3] * 4
    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(done) == sorted(sizes)
    assert max(most_seen) <= 10 and share.held == 0


def test_what_fails_gives_its_memory_back():
    share = decode_memory.MemoryShare(2)
    for _ in range(3):
        try:
            with share.hold(2):
                raise OSError
        except OSError:
            assert share.held == 0
