"""Bounds of configured values."""

from typing import Annotated

from metarun.ranges import Above, AtLeast, AtMost, Below, describe


def test_bounds_of_different_kinds_are_not_equal_so_that_typing_keeps_their_annotations_apart():
    assert AtLeast(0) != Above(0) and AtMost(1) != Below(1)
    first, second = Annotated[float, AtLeast(0), Below(1)], Annotated[float, Above(0), AtMost(1)]
    assert describe(first) == "a number, at least 0 and below 1"
    assert describe(second) == "a number, above 0 and at most 1"
