"""One try of an attacker of files, within bounds of memory and of processor time."""

import time
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

from fault import pace
from helpers.attacks import Attack
from metarun.errors import DataError

MOST_LETTERS = 5000  # of an error, whatever names the file has


class Bounds(NamedTuple):
    """How much one try may take."""

    memory: int  # bytes that Python holds at most, beyond what it held before
    seconds: float  # of processor time, on a core as `pace` says


def is_refused(attack: Attack, what: str, read: Callable[[], object], bounds: Bounds) -> bool:
    """Count one try, and return whether a reader has refused with a DataError of three lines.

    Any other error is a failure of the reader, and so is a try beyond its bounds.

    Args:
      what: which try it is, so that it can be repeated.
    """
    attack.tries += 1
    refused = False
    began = time.process_time()
    tracemalloc.start()
    try:
        read()
    except DataError as error:
        refused = True
        if str(error).count("\n") != 2 or len(str(error)) > MOST_LETTERS:
            attack.fail(f"{what}: an error that is not three lines: {error!s:.500}")
    except Exception as error:
        attack.fail(f"{what}: {error!r:.500}")
    finally:
        peak, taken = tracemalloc.get_traced_memory()[1], time.process_time() - began
        tracemalloc.stop()
    if peak > bounds.memory or (taken > bounds.seconds and taken > pace.allow(bounds.seconds)):
        attack.fail(f"{what}: {peak:,} bytes, {taken:.1f} s")
    return refused
