"""What a sweep tries for one key: `log(1e-4,1e-2,8)`, `linear(0,1,5)`, `0.01,0.1`, `0..2`."""

import json
import re
from typing import Any, Literal, NamedTuple

from metarun.config import yaml_file
from metarun.config.origin import make_error
from metarun.errors import ConfigError

RANGE = re.compile(r"\s*(log|linear)\((.*)\)\s*")
CALL = re.compile(r"\s*([A-Za-z_]+)\s*\(.*\)\s*")
WHOLE_RANGE = re.compile(r"\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*")
OPENING, CLOSING = "([{", ")]}"
DIGITS = 6  # significant digits of the values of a range: enough to tell them apart, few enough to read
MOST = 10_000  # values of one key


class Axis(NamedTuple):
    """The values that a sweep tries for one key."""

    key: str  # as in an override: training.optimizer.learning_rate
    values: tuple[Any, ...]  # of the grid, in their order; two or more
    # How other values may lie between the first and the last one; choice: there are no others.
    scale: Literal["choice", "linear", "log"] = "choice"
    where: str = ""  # the file and line, or the override, that gives it

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers lie on it."""
        return all(type(value) is int for value in self.values)


def parse(key: str, text: str, where: str) -> Axis | None:
    """Return the axis that a text describes; None: it is a single value.

    Raises:
      ConfigError: the text looks like an axis and is none.
    """
    if found := RANGE.fullmatch(text):
        return Axis(key, space(found[1], found[2], where), _name_scale(found[1]), where)
    if found := CALL.fullmatch(text):
        what = f"there is no range {found[1]}"
        raise make_error(what, where, "write log(LOW,HIGH,COUNT) or linear(LOW,HIGH,COUNT)")
    if found := WHOLE_RANGE.fullmatch(text):
        first, last = int(found[1]), int(found[2])
        if not first < last < first + MOST:
            what = f"{text.strip()} is no range of whole numbers"
            raise make_error(what, where, f"write FIRST..LAST, such as 0..2, with at most {MOST:,} values")
        return Axis(key, tuple(range(first, last + 1)), "linear", where)
    parts = split(text)
    return make_choice(key, [_parse_value(part, where) for part in parts], where) if len(parts) > 1 else None


def make_choice(key: str, values: list[Any], where: str) -> Axis:
    """Return the axis of some values.

    Raises:
      ConfigError: there are fewer than two, or one of them twice.
    """
    texts = [json.dumps(value) for value in values]
    if len(values) < 2:
        raise make_error(f"{key} has fewer than two values to try", where, f"write {key}=0.01,0.1")
    if repeated := [text for index, text in enumerate(texts) if text in texts[:index]]:
        raise make_error(f"{key} has the value {repeated[0]} twice", where, "name each once")
    return Axis(key, tuple(values), "choice", where)


def space(name: str, arguments: str, where: str) -> tuple[Any, ...]:
    """Return the values of `log(LOW,HIGH,COUNT)` or `linear(LOW,HIGH,COUNT)`; whole numbers if all of them are.

    Raises:
      ConfigError: these are no such three numbers.
    """
    remedy = f"write {name}(LOW,HIGH,COUNT), such as {name}({'1e-4,1e-2' if name == 'log' else '0,1'},8)"
    ends = [_parse_value(part, where) for part in split(arguments)]
    if len(ends) != 3 or any(type(end) not in (int, float) for end in ends):
        raise make_error(f"{name}({arguments}) is not three numbers", where, remedy)
    low, high, count = ends
    if type(count) is not int or not 2 <= count <= MOST:
        raise make_error(f"{count} is no number of values", where, f"give 2 to {MOST:,} values")
    if not low < high < float("inf") or low == -float("inf"):
        raise make_error(f"{low} is not below {high}", where, remedy)
    if name == "log" and low <= 0:
        raise make_error(
            f"a logarithmic range cannot begin at {low}", where, "begin above zero, or use linear"
        )
    shares = [index / (count - 1) for index in range(count)]
    if name == "log":
        inner = [low * (high / low) ** share for share in shares[1:-1]]
    else:
        inner = [low + (high - low) * share for share in shares[1:-1]]
    values = [low, *(float(f"{value:.{DIGITS}g}") for value in inner), high]
    is_whole = type(low) is type(high) is int and all(float(value).is_integer() for value in values)
    return tuple(int(value) if is_whole else float(value) for value in values)


def split(text: str) -> list[str]:
    """Return what stands between the commas of a text that no bracket and no quotation mark holds."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in OPENING or sign in CLOSING:
            depth += 1 if sign in OPENING else -1
        elif sign == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += sign
    return parts


def format_value(value: Any) -> str:
    """Return a value as an override spells it."""
    return json.dumps(value)


def _name_scale(name: str) -> Literal["linear", "log"]:
    return "log" if name == "log" else "linear"


def _parse_value(text: str, where: str) -> Any:
    if not text.strip():
        raise make_error("there is no value beside a comma", where, "write key=0.01,0.1")
    try:
        return yaml_file.parse(text, "").value
    except ConfigError as error:
        raise make_error(error.what, where, error.remedy) from None
