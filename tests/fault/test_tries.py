"""One try of an attacker of files: what counts as refused, and what as a failure."""

import time

import pytest

from fault.tries import Bounds, is_refused
from helpers.attacks import Attack
from metarun.errors import DataError

BOUNDS = Bounds(memory=1 << 20, seconds=0.02)


def refuse(*words: str) -> None:
    raise DataError(*words)


def work() -> None:
    """Take a few times as long as BOUNDS allow, on any machine: `fault.pace` measures the same work."""
    began = time.process_time()
    while time.process_time() < began + 2.0:
        sum(range(1000))


TRIES = {
    "a reader that reads": (lambda: None, False, None),
    "three lines": (lambda: refuse("no picture", "a.png", "take another"), True, None),
    "a part too long": (lambda: refuse("a" * 6000, "a.png", "take another"), True, "not three lines"),
    "any other error": (lambda: {}["key"], False, "KeyError"),
    "too much memory": (lambda: bytearray(2 << 20), False, "2,097,"),
    "too much time": (work, False, "2.0 s"),
}


@pytest.mark.parametrize("name", TRIES)
def test_a_try_is_read_refused_or_a_failure(name):
    read, refused, failure = TRIES[name]
    attack = Attack()
    assert is_refused(attack, "try 7", read, BOUNDS) == refused
    assert attack.tries == 1 and len(attack.failures) == (failure is not None)
    if failure:
        assert attack.failures[0].startswith("try 7: ") and failure in attack.failures[0]
