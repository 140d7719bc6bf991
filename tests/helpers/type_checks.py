"""The checks of every signature of metarun, cheap enough that all tests run under them.

`install` lets jaxtyping's import hook put `check` around every function of metarun. It does what `jaxtyping.jaxtyped`
does with beartype, in a quarter of the time: tests build thousands of models and algorithms, whose inner functions are
made anew each time. Here the checks are written once for each function of the source, when it is first called, and
arguments are checked once a call and not twice.
"""

import contextlib
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import beartype
import jaxtyping
from beartype import roar

JAXTYPED = jaxtyping.jaxtyped
SCOPE = JAXTYPED("context")  # in which a name in a shape stands for one size; it holds no state
write_checks = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


class Checks(NamedTuple):
    """What is checked at each call of a function."""

    arguments: Callable  # takes what the function takes
    result: Callable  # takes what the function returns
    scope: Any  # the context of both


written: dict[tuple, Checks] = {}
kept: list[Any] = []  # whose ids are in the keys of `written`


def install(package: str) -> None:
    """Check every signature of a package that nobody has imported yet."""
    jaxtyping.jaxtyped = jaxtyped  # by this name the import hook decorates
    jaxtyping.install_import_hook(package, f"{__name__}.write_checks")


def jaxtyped(function: Any = None, *, typechecker: Any = None) -> Any:
    """Return what decorates a function or a class, as `jaxtyping.jaxtyped` does; beartype is always the checker."""
    return check if function is None else check(function)


def check(function: Any) -> Any:
    """Return a function with checks, or a class whose dataclass takes no other values than its fields say."""
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function) and "__init__" in vars(function):
            function.__init__ = check(function.__init__)
        return function
    if not function.__annotations__:
        return function
    if any(map(names_an_argument, function.__annotations__.values())):
        return JAXTYPED(function, typechecker=write_checks)
    checks: Checks | None = None

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        nonlocal checks
        __tracebackhide__ = True
        if checks is None:
            checks = find_checks(function)
        with checks.scope:
            try:
                checks.arguments(*arguments, **options)
            except roar.BeartypeCallHintViolation as violation:
                raise make_error(function, "parameters", violation) from violation
            result = function(*arguments, **options)
            try:
                checks.result(result)
            except roar.BeartypeCallHintViolation as violation:
                raise make_error(function, "return value", violation) from violation
        return result

    return checked


def make_error(function: Callable, part: str, violation: Exception) -> jaxtyping.TypeCheckError:
    """Return what is raised for a violation."""
    name = f"{function.__module__}.{function.__qualname__}"
    return jaxtyping.TypeCheckError(f"Type-check error whilst checking the {part} of {name}: {violation}")


def find_checks(function: Callable) -> Checks:
    """Return the checks of a function: for inner functions that mean the same they are the same."""
    source = function if hasattr(function, "__wrapped__") else function.__code__
    optional = (len(function.__defaults__ or ()), *(function.__kwdefaults__ or ()))
    key = (id(source), optional, *((name, identify(hint)) for name, hint in function.__annotations__.items()))
    if key not in written:
        kept.append(source)
        written[key] = make_checks(function)
    return written[key]


def make_checks(function: Callable) -> Checks:
    """Write the checks of a function."""
    hints = {name: resolve(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    result = {"return": hints.pop("return", Any)}
    scope = SCOPE if any(map(has_shape, [*hints.values(), *result.values()])) else contextlib.nullcontext()
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else None,
        )
        for parameter in signature.parameters.values()
    ]
    plain = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    taken = write_check(function, str(plain), hints)
    given = [
        parameter for parameter in signature.parameters.values() if parameter.default is not parameter.empty
    ]
    by_name = {
        parameter.name: parameter.default for parameter in given if parameter.kind is parameter.KEYWORD_ONLY
    }
    taken.__kwdefaults__ = by_name
    taken.__defaults__ = tuple(parameter.default for parameter in given if parameter.name not in by_name)
    return Checks(add_checks(taken), add_checks(write_check(function, "(value)", result)), scope)


def write_check(function: Callable, parameters: str, hints: Mapping[str, Any]) -> Any:
    """Write a function with these parameters and hints that returns its parameter `value`, if it has one."""
    body = "return value" if "return" in hints else "pass"
    space: dict[str, Any] = {}
    exec(f"def taken{parameters}: {body}", space)
    taken = space["taken"]
    taken.__name__, taken.__qualname__ = function.__name__, function.__qualname__
    taken.__module__ = function.__module__
    taken.__annotations__ = {name: hint for name, hint in hints.items() if hint is not Any}
    return taken


def add_checks(taken: Callable) -> Callable:
    """Return the function with checks of its hints; without those that mean nothing outside a class, such as Self."""
    if not taken.__annotations__:
        return ignore
    try:
        return write_checks(taken)
    except roar.BeartypeDecorHintException:
        taken.__annotations__ = {
            name: hint for name, hint in taken.__annotations__.items() if hint is not typing.Self
        }
        return write_checks(taken)


def ignore(*_: Any, **__: Any) -> None:
    """Check nothing."""


def resolve(hint: Any, names: dict[str, Any]) -> Any:
    """Return a hint whose strings are replaced by what they name; Any if they name nothing here."""

    def holder() -> None: ...

    holder.__annotations__ = {"hint": hint}
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["hint"]
    except Exception:
        return Any


def has_shape(hint: Any) -> bool:
    """Return whether a hint holds an array of jaxtyping."""
    return is_array(hint) or any(map(has_shape, list_parts(hint)))


def names_an_argument(hint: Any) -> bool:
    """Return whether a shape in a hint is a number that the function takes, as in "{count}"."""
    return "{" in hint.dim_str if is_array(hint) else any(map(names_an_argument, list_parts(hint)))


def is_array(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)


def list_parts(hint: Any) -> tuple:
    """Return the hints within a hint."""
    return tuple(hint) if isinstance(hint, list) else typing.get_args(hint)


def identify(hint: Any) -> Any:
    """Return what is equal for two hints that mean the same. Shapes of jaxtyping are new classes at each mention."""
    if is_array(hint):
        return hint.array_type, hint.dtypes, hint.dim_str
    if isinstance(hint, list):
        return tuple(map(identify, hint))
    if arguments := typing.get_args(hint):
        return typing.get_origin(hint), tuple(map(identify, arguments))
    return hint
