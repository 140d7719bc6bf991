"""What a configured value may be: bounds for `Annotated`, and any annotation in words. Knows nothing.

A `Config` writes `steps: Annotated[int, AtLeast(1)]`; the binder checks it, and every message and list
says it with the same words. Several bounds on one value must all hold.
"""

import dataclasses
import types
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    Union,
    get_args,
    get_origin,
    runtime_checkable,
)


@runtime_checkable
class Bound(Protocol):
    """A condition on a value, and its words."""

    def allows(self, value: Any) -> bool: ...

    def describe(self) -> str: ...


class AtLeast(NamedTuple):
    """The closed lower bound."""

    least: float

    def allows(self, value: float) -> bool:
        return value >= self.least

    def describe(self) -> str:
        return f"at least {self.least}"


class Above(NamedTuple):
    """The open lower bound."""

    below: float

    def allows(self, value: float) -> bool:
        return value > self.below

    def describe(self) -> str:
        return f"above {self.below}"


class AtMost(NamedTuple):
    """The closed upper bound."""

    most: float

    def allows(self, value: float) -> bool:
        return value <= self.most

    def describe(self) -> str:
        return f"at most {self.most}"


class Below(NamedTuple):
    """The open upper bound."""

    above: float

    def allows(self, value: float) -> bool:
        return value < self.above

    def describe(self) -> str:
        return f"below {self.above}"


class Between(NamedTuple):
    """Both ends are allowed."""

    least: float
    most: float

    def allows(self, value: float) -> bool:
        return self.least <= value <= self.most

    def describe(self) -> str:
        return f"between {self.least} and {self.most}"


WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def describe(annotation: Any) -> str:
    """Says which values an annotation admits: "a whole number, at least 1, or null"."""
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
