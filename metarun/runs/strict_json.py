"""JSON that every reader understands: numbers that are not finite become strings, arrays become lists."""

import hashlib
import json
import math
from typing import Any

SEAL = "sha256"  # the key of an object for the digest of all its other keys


def encode(value: Any) -> str:
    """Write a value on one line. NaN and infinities become "nan", "inf" and "-inf", which `float` reads back."""
    try:
        return _encode(value)
    except ValueError:  # the encoder refuses numbers that are not finite; they are too rare to look for first
        return _encode(_spell_numbers(value))


def encode_indented(value: Any) -> str:
    """Write a value for people, with one key on each line."""
    return json.dumps(_spell_numbers(value), indent=2, allow_nan=False) + "\n"


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """Return an object with the SHA-256 of all that it says otherwise, as its last key `sha256`."""
    whole = {key: value for key, value in content.items() if key != SEAL}
    return whole | {SEAL: _digest(whole)}


def open_seal(content: dict[str, Any]) -> dict[str, Any]:
    """Return an object without the seal that it may have.

    Raises:
      ValueError: it has one, and does not say what it said when it was sealed.
    """
    whole = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != _digest(whole):
        raise ValueError("it was changed after it was written: its sha256 is another one")
    return whole


def _digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of the values of an object, in hex; neither spaces nor the order of its keys count."""
    plain = json.loads(encode(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _spell_numbers(value: Any) -> Any:
    """Replace every number that is not finite by its name, and every array by a list."""
    if isinstance(value, dict):
        return {key: _spell_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_spell_numbers(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _spell_numbers(value.tolist())
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _to_numbers(array: Any) -> Any:
    """Return a scalar or an array of numpy or jax as Python numbers. The encoder calls this for unknown types."""
    if not hasattr(array, "tolist"):
        raise TypeError(f"{array!r} has no place in JSON")
    return array.tolist()


_encode = json.JSONEncoder(allow_nan=False, default=_to_numbers).encode
