"""The checks of every signature of metarun, written once for each function of the source.

jaxtyping asks for the checks of an inner function whenever the function around it runs. Writing them again for every
model and every algorithm that a test builds takes a tenth of the time of all tests.
"""

import typing
from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping

write_checks = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
written: dict[tuple, Callable] = {}


def check(function: Callable) -> Callable:
    """Return a function with checks.

    Args:
      function: what jaxtyping has made of a signature. It has the names and the types of that signature, and its body
        is empty: it computes nothing that differs from one inner function to the next.
    """
    code, hints = function.__code__, function.__annotations__
    names = (
        function.__module__,
        function.__qualname__,
        code.co_varnames[: code.co_argcount + code.co_kwonlyargcount],
    )
    kinds = (code.co_posonlyargcount, code.co_argcount, code.co_flags, code.co_code)
    optional = (len(function.__defaults__ or ()), *(function.__kwdefaults__ or ()))
    key = (names, kinds, optional, tuple((name, identify(hint)) for name, hint in hints.items()))
    if key not in written:
        written[key] = write_checks(function)
    return written[key]


def identify(hint: Any) -> Any:
    """Return what is equal for two hints that mean the same. Shapes of jaxtyping are new classes at each mention."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return hint.array_type, hint.dtypes, hint.dim_str
    if isinstance(hint, list):
        return tuple(map(identify, hint))
    if arguments := typing.get_args(hint):
        return typing.get_origin(hint), tuple(map(identify, arguments))
    return hint
