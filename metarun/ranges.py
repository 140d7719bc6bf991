"""Bounds of configured values, and the words for any annotation. Imports no part of metarun.

A `Config` writes `steps: Annotated[int, AtLeast(1)]`. The binder checks the bound, and every message and list uses the
same words for it. Several bounds on one value must all hold. Bounds of different kinds are never equal, even with equal
numbers: `typing` keeps one annotation for all that are equal.
"""

import dataclasses
import types
from collections.abc import Iterable
from typing import (
    Annotated,
    Any,
    Literal,
    Protocol,
    Union,
    get_args,
    get_origin,
    runtime_checkable,
)


@runtime_checkable
class Bound(Protocol):
    """A condition on a value, and the words for it."""

    def allows(self, value: Any) -> bool: ...

    def describe(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """A lower bound that is allowed itself."""

    least: float

    def allows(self, value: float) -> bool:
        return value >= self.least

    def describe(self) -> str:
        return f"at least {self.least}"


@dataclasses.dataclass(frozen=True)
class Above:
    """A lower bound that is not allowed itself."""

    below: float

    def allows(self, value: float) -> bool:
        return value > self.below

    def describe(self) -> str:
        return f"above {self.below}"


@dataclasses.dataclass(frozen=True)
class AtMost:
    """An upper bound that is allowed itself."""

    most: float

    def allows(self, value: float) -> bool:
        return value <= self.most

    def describe(self) -> str:
        return f"at most {self.most}"


@dataclasses.dataclass(frozen=True)
class Below:
    """An upper bound that is not allowed itself."""

    above: float

    def allows(self, value: float) -> bool:
        return value < self.above

    def describe(self) -> str:
        return f"below {self.above}"


@dataclasses.dataclass(frozen=True)
class Between:
    """A lower and an upper bound that are both allowed themselves."""

    least: float
    most: float

    def allows(self, value: float) -> bool:
        return self.least <= value <= self.most

    def describe(self) -> str:
        return f"between {self.least} and {self.most}"


# The largest whole number of an option that has a lower bound and no upper one: such an option counts something, and a
# larger count would only end in a computer without memory. An option that may be larger says so by `AtMost`.
LARGEST_COUNT = 100_000


def find_ceiling(bounds: Iterable[Any]) -> AtMost | None:
    """Return the upper bound of a whole number that has a lower bound alone; None: it has one of its own, or none."""
    kinds = {type(bound) for bound in bounds if isinstance(bound, Bound)}
    counts = kinds & {AtLeast, Above} and not kinds & {AtMost, Below, Between}
    return AtMost(LARGEST_COUNT) if counts else None


WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def describe(annotation: Any) -> str:
    """Say which values an annotation admits: "a whole number, at least 1, or null"."""
    arguments: Any = get_args(annotation)
    match get_origin(annotation):
        case kind if kind is Annotated:
            base, *extras = arguments
            bounds = [extra.describe() for extra in extras if isinstance(extra, Bound)]
            return ", ".join([describe(base), *([" and ".join(bounds)] if bounds else [])])
        case kind if kind is Literal:
            return "one of " + ", ".join(map(str, arguments)) if len(arguments) > 1 else str(arguments[0])
        case kind if kind is Union or kind is types.UnionType:
            return ", or ".join(map(describe, arguments))
        case kind if kind is tuple:
            return _describe_tuple(arguments)
    if dataclasses.is_dataclass(annotation):
        return "a section with the keys " + ", ".join(field.name for field in dataclasses.fields(annotation))
    return WORDS.get(annotation, str(annotation))


def _describe_tuple(members: tuple[Any, ...]) -> str:
    if len(members) == 2 and members[1] is Ellipsis:
        return f"a list, each {describe(members[0])}"
    return f"a list of {len(members)}: " + "; ".join(map(describe, members))
