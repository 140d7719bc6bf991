"""JSON that every reader understands: numbers that are not finite are strings, arrays of numpy are plain."""

import json
import math
from typing import Any


def encode(value: Any) -> str:
    """The value on one line. NaN and infinities become "nan", "inf" and "-inf", which `float` reads back."""
    try:
        return _encode(value)
    except ValueError:  # the encoder refuses numbers that are not finite; they are too rare to look for first
        return _encode(_spelled(value))


def encode_indented(value: Any) -> str:
    """The same for people: one key a line."""
    return json.dumps(_spelled(value), indent=2, allow_nan=False) + "\n"


def _spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spelled(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _spelled(value.tolist())
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _plain(array: Any) -> Any:
    """A numpy or jax scalar or array as Python numbers, which the encoder meets when it knows no better."""
    if not hasattr(array, "tolist"):
        raise TypeError(f"{array!r} has no place in JSON")
    return array.tolist()


_encode = json.JSONEncoder(allow_nan=False, default=_plain).encode
