"""Lines of metrics.jsonl in memory, at about 80 bytes a line where dicts would take a kilobyte.

`Rows` is a sequence of dicts, each of which is made when it is looked at. A column of all lines is one array.
"""

import array
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Float, Int

Row = dict[str, Any]

CODES: dict[type | None, str] = {str: "q", int: "q", float: "d"}  # the array that holds values of a type
# A column takes the type of the highest rank that it has met.
RANKS: dict[type | None, int] = {None: 0, str: 1, int: 2, float: 3}
LARGEST = 2**63 - 1  # whole number in an array


class Column:
    """The values of one key in lines with the same keys.

    Values of one type lie in an array: numbers as they are, a text as its place among all texts. The few of another
    type, such as the text "nan" among numbers, lie beside it.
    """

    def __init__(self) -> None:
        self.kind: type | None = None  # of the values in the array
        self.array: array.array[Any] = array.array("d")
        self.texts: list[str] = []
        self.codes: dict[str, int] = {}  # {text: its place among the texts}
        self.others: dict[int, Any] = {}  # {place: value of another type}

    def append(self, value: Any) -> None:
        """Add a value."""
        kind = type(value)
        if RANKS.get(kind, 0) > RANKS[self.kind]:
            self._take(kind)
        if kind is self.kind and (kind is not int or abs(value) <= LARGEST):
            self.array.append(self._encode(value) if kind is str else value)
        else:
            self.others[len(self.array)] = value
            self.array.append(0)

    def _take(self, kind: type) -> None:
        """Hold values of another type in the array from now on; those in it move out."""
        count = len(self.array)
        self.others = {place: self.get(place) for place in range(count)}
        self.kind, self.array = kind, array.array(CODES[kind], bytes(8 * count))

    def _encode(self, text: str) -> int:
        code = self.codes.setdefault(text, len(self.texts))
        if code == len(self.texts):
            self.texts.append(text)
        return code

    def get(self, place: int) -> Any:
        """Return the value at a place."""
        if place in self.others:
            return self.others[place]
        value = self.array[place]
        return self.texts[value] if self.kind is str else value

    def get_numbers(self) -> Float[np.ndarray, "line"]:
        """Return the values as numbers; NaN for what is none."""
        held = np.array(self.array)
        if self.kind is str:
            held = np.array([*map(to_number, self.texts), math.nan])[held]
        numbers = held.astype(np.float64)
        if self.others:
            numbers[list(self.others)] = [to_number(value) for value in self.others.values()]
        return numbers

    def find(self, value: Any) -> Bool[np.ndarray, "line"]:
        """Return which of the values are this one."""
        if self.kind is str:
            found = np.array(self.array) == self.codes.get(value, -1)
        elif isinstance(value, int | float):
            found = np.array(self.array) == value
        else:
            found = np.zeros(len(self.array), bool)
        if self.others:
            found[list(self.others)] = [other == value for other in self.others.values()]
        return found


class Form:
    """Lines that have the same keys in the same order."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.columns = {key: Column() for key in keys}
        self.count = 0

    def append(self, row: Mapping[str, Any]) -> int:
        """Add a line, and return its place."""
        for column, value in zip(self.columns.values(), row.values(), strict=True):
            column.append(value)
        self.count += 1
        return self.count - 1

    def get_row(self, place: int) -> Row:
        """Return a line."""
        return {key: column.get(place) for key, column in self.columns.items()}


class Rows(Sequence[Row]):
    """Lines in their order, or some of them. Equal to any sequence of equal dicts."""

    def __init__(
        self, forms: Sequence[Form], members: Int[np.ndarray, "row"], places: Int[np.ndarray, "row"]
    ) -> None:
        self._forms, self._members, self._places = forms, members, places

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> "Rows": ...
    def __getitem__(self, place: int | slice) -> "Row | Rows":
        if isinstance(place, slice):
            return self._select(place)
        return self._forms[self._members[place]].get_row(int(self._places[place]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def where(self, **values: Any) -> "Rows":
        """Return the rows that have all these values."""
        found = [self._find(name, value) for name, value in values.items()]
        return self._select(np.logical_and.reduce(found))

    def without(self, **values: Any) -> "Rows":
        """Return the rows that have none of these values."""
        found = [self._find(name, value) for name, value in values.items()]
        return self._select(~np.logical_or.reduce(found))

    def having(self, name: str) -> "Rows":
        """Return the rows that have this key."""
        return self._select(
            np.isin(self._members, [i for i, form in enumerate(self._forms) if name in form.columns])
        )

    def get_numbers(self, name: str, missing: float = math.nan) -> Float[np.ndarray, "row"]:
        """Return the values of a key as numbers; NaN for what is none, and `missing` where the key is not there."""
        return self._gather(name, float(missing), Column.get_numbers)

    def get_whole_numbers(self, name: str) -> Int[np.ndarray, "row"]:
        """Return the values of a key as whole numbers; 0 where the key is not there, and -1 for what is none."""
        numbers = self.get_numbers(name, missing=0)
        return np.where(np.abs(numbers) < LARGEST, numbers, -1).astype(np.int64)

    def list_values(self, name: str) -> list[Any]:
        """Return the values of a key; None where it is not there."""
        columns = [form.columns.get(name) for form in self._forms]
        pairs = zip(self._members, self._places, strict=True)
        return [
            None if (column := columns[member]) is None else column.get(int(place)) for member, place in pairs
        ]

    def list_names(self) -> list[str]:
        """Return all keys, in the order in which they first come up."""
        members, firsts = np.unique(self._members, return_index=True)
        ordered = members[np.argsort(firsts)].tolist()
        return list(dict.fromkeys(key for member in ordered for key in self._forms[member].columns))

    def where_finite(self, name: str) -> "Rows":
        """Return the rows in which a key has a finite number."""
        return self._select(np.isfinite(self.get_numbers(name)))

    def _find(self, name: str, value: Any) -> np.ndarray:
        return self._gather(name, False, lambda column: column.find(value))

    def _select(self, chosen: Any) -> "Rows":
        return Rows(self._forms, self._members[chosen], self._places[chosen])

    def _gather(self, name: str, missing: Any, read: Any) -> np.ndarray:
        """Return what `read` gives for the column of a key, row by row."""
        gathered = np.full(len(self), missing)
        for member in np.unique(self._members).tolist():
            if column := self._forms[member].columns.get(name):
                own = self._members == member
                gathered[own] = read(column)[self._places[own]]
        return gathered


def make_rows(rows: Iterable[Mapping[str, Any]]) -> Rows:
    """Return lines as `Rows`, which takes them one at a time."""
    if isinstance(rows, Rows):
        return rows
    numbers: dict[tuple[str, ...], int] = {}
    forms: list[Form] = []
    members, places = array.array("i"), array.array("i")
    for row in rows:
        member = numbers.setdefault(tuple(row), len(forms))
        if member == len(forms):
            forms.append(Form(row))
        members.append(member)
        places.append(forms[member].append(row))
    return Rows(forms, np.array(members, np.int32), np.array(places, np.int32))


def index_learners(rows: Rows) -> tuple[list[tuple[int, int]], Int[np.ndarray, "row"]]:
    """Return (replica, member) of all learners, in the order in which they come up, and which of them has each row."""
    pairs = [rows.get_whole_numbers(name) for name in ("replica", "member")]
    _, first, inverse = np.unique(np.stack(pairs, axis=1), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    learners = [(int(pairs[0][row]), int(pairs[1][row])) for row in first[order]]
    return learners, np.argsort(order)[inverse.ravel()]


def tabulate(rows: Rows, name: str) -> tuple[Int[np.ndarray, "step"], Float[np.ndarray, "learner step"]]:
    """Return the steps of the rows that have a metric, and what each learner had there; NaN for what is not finite."""
    rows = rows.having(name)
    if not len(rows):
        return np.zeros(0, np.int64), np.zeros((0, 0))
    learners, learner = index_learners(rows)
    steps, place = np.unique(rows.get_whole_numbers("step"), return_inverse=True)
    measured, values = rows.get_numbers(name), np.full((len(learners), len(steps)), math.nan)
    values[learner, place] = np.where(np.isfinite(measured), measured, math.nan)
    return steps, values


def to_number(value: Any) -> float:
    """Return a value of metrics.jsonl or result.json as a number; NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
