"""The numbers of a config that a compiled program takes as arguments, so that another value needs no new program.

Rates, clips, weights of losses, temperatures and lengths of schedules change from run to run, and a program that has
them as constants is compiled anew for each value. Nobody lists which options can be arguments: `trace` tries. It hands
the function traced numbers in place of the configured ones, and an option that the function must know while it is
traced, because it decides on it or computes with numpy, stays a constant.

Some are constants without a try:

- a zero, which often means "none": the compiler drops what it multiplies;
- the decay of a running mean: the optimizers compute 1 - decay, and in float32 that leaves three digits of 0.999.
"""

import copy
import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import jax

from metarun import signals
from metarun.errors import MetarunError
from metarun.ranges import Below

Number = float | jax.Array  # an option, or a traced number in its place
Numbers = Mapping[str, Any]  # {the path of an option in its section: its value, or an array in its place}

STEPS = ("steps", "every", "warmup_steps")  # whole numbers that no shape depends on
ZERO = "a zero or null stays a constant"  # why it is no argument

logger = logging.getLogger("metarun")


class Traced(NamedTuple):
    """A traced function, and the numbers that it takes as its first argument."""

    program: jax.stages.Traced
    numbers: Numbers


def collect(section: Any, whole: tuple[str, ...] = ()) -> Numbers:
    """Return the numbers of a dataclass and of all that lie in it: {"optimizer.learning_rate": 0.001}.

    The options of a `Selection` have the paths that they have in a file, without its `config`.

    Args:
      whole: names of whole numbers that count, too.
    """
    found: dict[str, Any] = {}
    for path, value, is_decay in _walk(section):
        is_number = type(value) is float or (type(value) is int and path.rpartition(".")[2] in whole)
        if is_number and value and not is_decay:
            found[path] = value
    return found


def explain_constant(section: Any, path: str) -> str:
    """Return why `collect` does not list an option of a dataclass."""
    options = {found: rest for found, *rest in _walk(section)}
    if path not in options:
        return "it is no number"
    value, is_decay = options[path]
    if is_decay:
        return "the decay of a running mean loses digits as an argument"
    if value is None or (value == 0 and type(value) is not bool):
        return ZERO
    return "shapes may depend on a whole number" if type(value) is int else "it is no number"


def replace(section: Any, numbers: Numbers) -> Any:
    """Return a copy of a dataclass with other numbers. They may be traced: its own checks, which they passed as
    plain numbers, do not run.
    """
    if not numbers:
        return section
    if isinstance(section, tuple):
        return tuple(replace(value, select(numbers, str(index))) for index, value in enumerate(section))
    changed = copy.copy(section)
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if field.name in numbers:
            object.__setattr__(changed, field.name, numbers[field.name])
        elif _holds_options(value):
            inner = numbers if field.name == "config" else select(numbers, field.name)
            object.__setattr__(changed, field.name, replace(value, inner))
    return changed


def select(numbers: Numbers, section: str, separator: str = ".") -> Numbers:
    """Return the numbers whose path begins with a section, by the rest of their path."""
    head = section + separator
    return {path.removeprefix(head): value for path, value in numbers.items() if path.startswith(head)}


def prefix(section: str, numbers: Numbers, separator: str = ".") -> Numbers:
    """Return the numbers by their paths below a section."""
    return {f"{section}{separator}{path}": value for path, value in numbers.items()}


def is_zero(value: Any) -> bool:
    """Return whether an option is zero. A traced number stands for one that is not, because zeros stay constants."""
    return not isinstance(value, jax.Array) and value == 0


def trace(function: Callable, numbers: Numbers, *arguments: Any, **options: Any) -> Traced:
    """Trace function(numbers, *arguments) with as many numbers for arguments as it can be traced with.

    In the good case, which is that all can be arguments, the function is traced once.

    Args:
      options: of jax.jit.
    """

    def attempt(chosen: Numbers) -> Traced:
        constants = {path: value for path, value in numbers.items() if path not in chosen}

        @functools.wraps(function)
        def call(traced: Numbers, *arguments: Any) -> Any:
            return function({**constants, **traced}, *arguments)

        return Traced(jax.jit(call, **options).trace(dict(chosen), *arguments), chosen)

    try:
        return attempt(numbers)
    except MetarunError:
        raise
    except Exception as error:
        if not numbers:
            raise
        logger.debug("not every number can be an argument: %s: %s", type(error).__name__, error)
    chosen = {path: value for path, value in numbers.items() if _succeeds(attempt, {path: value})}
    logger.debug("constants of the program: %s", ", ".join(path for path in numbers if path not in chosen))
    return attempt(chosen if chosen.keys() != numbers.keys() else {})


def jit(
    function: Callable,
    numbers: Numbers,
    compiler_options: dict[str, Any] | None = None,
    check: Callable[[], None] = signals.ignore,
) -> Callable:
    """Make (*arguments) -> function(numbers, *arguments), compiled at the first call for arguments like its own.

    As many numbers as can be are arguments of the program; see `trace`.

    Args:
      check: is called again and again while the program is compiled; what it raises ends the call.
    """
    compiled: list[Callable] = []

    def call(*arguments: Any) -> Any:
        if not compiled:
            traced = trace(function, numbers, *arguments)
            lowered = traced.program.lower()
            program = signals.wait_for(functools.partial(lowered.compile, compiler_options), check)
            compiled.append(functools.partial(program, dict(traced.numbers)))
        return compiled[0](*arguments)

    return call


def _succeeds(attempt: Callable, chosen: Numbers) -> bool:
    try:
        attempt(chosen)
    except Exception:  # whatever a function raises that must know the number
        return False
    return True


def _holds_options(value: Any) -> bool:
    """Return whether a value is a dataclass, or a tuple of them."""
    if isinstance(value, tuple):
        return any(map(_holds_options, value))
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _walk(section: Any) -> Any:
    """Yield (path, value, whether it is the decay of a running mean) of all options in a section."""
    if isinstance(section, tuple):
        for index, value in enumerate(section):
            if _holds_options(value):
                yield from ((f"{index}.{path}", *rest) for path, *rest in _walk(value))
        return
    hints = get_type_hints(type(section), include_extras=True)
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if not _holds_options(value):
            yield field.name, value, _is_decay(hints[field.name])
        elif field.name == "config":
            yield from _walk(value)
        else:
            yield from ((f"{field.name}.{path}", *rest) for path, *rest in _walk(value))


def _is_decay(annotation: Any) -> bool:
    """Return whether an annotation is that of a share below 1, or of such a share or None."""
    if get_origin(annotation) is Annotated:
        return any(isinstance(bound, Below) and bound.above == 1 for bound in get_args(annotation)[1:])
    return any(map(_is_decay, get_args(annotation)))
