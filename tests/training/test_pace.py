"""How many steps the next chunk has."""

from metarun.training.loop import CAPACITY
from metarun.training.pace import Pace


def test_the_pace_reaches_beyond_no_end_and_stays_within_the_capacity():
    pace = Pace(None)
    assert pace.next(0, [100, 30]) == 1
    for _ in range(10):
        pace.learn(pace.steps, 1e-6 * pace.steps)
    assert pace.next(0, [100_000]) == CAPACITY
    assert pace.next(95, [100, 130]) == 5
    pace.learn(10, 20.0)
    assert pace.next(0, [100]) == 1
    assert Pace(17).next(0, [100]) == 17


def test_a_fixed_pace_learns_nothing():
    pace = Pace(17)
    pace.learn(17, 100.0)
    assert pace.next(0, [100]) == 17
