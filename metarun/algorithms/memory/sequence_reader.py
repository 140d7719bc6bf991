"""The interface of a reader: a network that reads a sequence into a memory and answers queries from it."""

from collections.abc import Callable
from typing import NamedTuple


class Reader(NamedTuple):
    """A way to read a sequence and to answer from it; each function is for ONE task."""

    init: Callable  # (key, size of a step, steps) -> layers
    # (layers, sequence [example, feature], memory) -> memory; the memory is None before the first example
    read: Callable
    answer: Callable  # (layers, memory, queries [query, feature]) -> [query, feature]
    # (layers, sequence [example, feature]) -> [example, feature]: place t is the answer to example t as a query, from
    # the memory of the examples before it
    follow: Callable
    answer_size: Callable  # (size of a step, steps) -> how many features an answer has
    continues: bool = True  # whether it can read on from a memory
