"""How slow this machine is now: a bound of seconds is meant for a core that is as fast as ours and free."""

import time

USUAL = 0.033  # seconds of `work` on one free core of an AMD EPYC, Python 3.11
TRIES = 3


def work() -> float:
    """Do what a reader in Python does for a moment, and return the seconds of processor time that it took."""
    began = time.process_time()
    text = "".join(f"key{place}: {place}\n" for place in range(60_000))
    {line.partition(":")[0]: int(line.partition(":")[2]) for line in text.splitlines()}
    return time.process_time() - began


def allow(seconds: float) -> float:
    """Return how long this machine may take for what may take so many seconds on ours; never less than that."""
    return seconds * max(1.0, min(work() for _ in range(TRIES)) / USUAL)
