"""A plain mapping to frozen dataclasses, by their annotations. The first value that is wrong is refused.

Annotations may be bool, int, float, str, Literal, unions, tuples, dataclasses, `Annotated` with bounds, and
`Annotated[Selection, Kind(...)]`. An int is a float, a whole float such as 1e3 is an int, a bool is not an int, floats
are finite, and a single value is a tuple of one.
"""

import contextlib
import dataclasses
import functools
import math
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from metarun import outside, plugins
from metarun.config import choices
from metarun.config.origin import Origin, choose, join
from metarun.config.selection import Kind, Selection
from metarun.errors import ConfigError
from metarun.ranges import Bound, describe, find_ceiling

T = TypeVar("T")
_remembered: dict[tuple[str, ...], Any] | None = None  # see `remember_selections`
LARGEST_WHOLE = 2**53  # above this a float has lost digits of the whole number that was meant


def bind(section: type[T], value: Any, origin: Origin, path: str = "", owner: str = "") -> T:
    """Return an instance of the dataclass `section`; `owner` says in errors whose keys these are."""
    owner = owner or (f"the section {path}" if path else "the configuration")
    fields = {field.name: field for field in dataclasses.fields(section) if field.init}  # type: ignore
    if not isinstance(value, dict):
        raise _make_value_error(value, path, origin, f"a section with the keys {', '.join(fields)}")
    for key in value:
        if key not in fields:
            raise origin.make_error(join(path, key), f"{owner} has no key {key}", choose(key, fields))
    hints = _read_hints(section)  # type: ignore[arg-type]
    bound = {name: _bind_field(field, hints[name], value, path, origin) for name, field in fields.items()}
    try:
        return section(**bound)
    except ValueError as error:
        what, remedy = error.args if len(error.args) == 2 else (str(error), "change one so that they agree")
        raise origin.make_error(path, what, remedy) from None


@functools.lru_cache(256)
def _read_hints(section: type) -> dict[str, Any]:
    return get_type_hints(section, include_extras=True)


def _bind_field(field: dataclasses.Field, hint: Any, section: dict, path: str, origin: Origin) -> Any:
    default, place = plugins.get_default(field), join(path, field.name)
    if field.name in section:
        return _bind_value(hint, _add_default_name(section[field.name], default), place, origin)
    if default is dataclasses.MISSING:
        kind = _find_kind(hint)
        expected = (
            f"a section with a name among {', '.join(choices.list_names(kind))}" if kind else describe(hint)
        )
        raise origin.make_error(place, f"{place} is missing", f"add it: {expected}")
    return default


def _add_default_name(value: Any, default: Any) -> Any:
    """Add the name of the default: `optimizer: {learning_rate: 0.01}` means the default optimizer."""
    if isinstance(default, Selection) and isinstance(value, dict) and "name" not in value:
        return {"name": default.name, **value}
    return value


def _bind_value(hint: Any, value: Any, path: str, origin: Origin) -> Any:
    if kind := _find_kind(hint):
        return bind_selection(kind, value, path, origin)
    arguments = get_args(hint)
    match get_origin(hint):
        case form if form is Annotated:
            return _bind_annotated(hint, value, path, origin)
        case form if form is Literal:
            return _bind_literal(arguments, value, path, origin)
        case form if form is Union or form is types.UnionType:
            return _bind_union(hint, value, path, origin)
        case form if form is tuple:
            return _bind_tuple(hint, value, path, origin)
    if dataclasses.is_dataclass(hint):
        key = ("section", str(hint), path, repr(value))
        return _remember(key, lambda: bind(hint, value, origin, path))  # type: ignore
    return _bind_scalar(hint, value, path, origin)


def _find_kind(hint: Any) -> str | None:
    """Return the kind that a Selection field chooses among; None for other fields."""
    extras = getattr(hint, "__metadata__", ())
    return next((extra.name for extra in extras if isinstance(extra, Kind)), None)


def bind_selection(kind: str, value: Any, path: str, origin: Origin) -> Selection:
    """Return the choice that a section makes among a kind, such as `algorithm`, with its options."""
    return _remember((kind, path, repr(value)), lambda: _bind_selection(kind, value, path, origin))


@contextlib.contextmanager
def remember_selections() -> Iterator[None]:
    """Bind equal sections once inside the `with`, and list and read plug-ins once: trials differ in few sections."""
    global _remembered
    before, _remembered = _remembered, {}
    try:
        yield
    finally:
        _remembered = before


def _remember(key: tuple[str, ...], make: Callable[[], T]) -> T:
    """Return what was made for a key inside of `remember_selections`; elsewhere it is made anew."""
    if _remembered is None:
        return make()
    if key not in _remembered:
        _remembered[key] = make()
    return _remembered[key]


def _bind_selection(kind: str, value: Any, path: str, origin: Origin) -> Selection:
    names = _remember(("names", kind), lambda: choices.list_names(kind))
    if not isinstance(value, dict):
        name = value if value in names else names[0] if names else kind
        raise origin.make_error(
            path, f"{path} cannot be {_format_value(value)}", f"write it as a section: {{name: {name}}}"
        )
    if "name" not in value:
        raise origin.make_error(path, f"{path}.name is missing", f"add it: one of {', '.join(names)}")
    name, options = value["name"], {key: option for key, option in value.items() if key != "name"}
    if name not in names:
        name = _find_outside(kind, name, join(path, "name"), origin)
    owner = f"the {kind} {outside.make_label(name)}"
    config_class = _remember(("class", kind, name), lambda: choices.read_config_class(kind, name))
    config: Any = bind(config_class, options, origin, path, owner)
    _refuse_replaced(config, options, path, origin, owner)
    return Selection(name, config)


def _refuse_replaced(config: Any, options: dict, path: str, origin: Origin, owner: str) -> None:
    """Refuse an option that another one replaces, unless it has its default, as in the config of a run.

    A plug-in's `replaced_options` are {option: the one in its place}, as its other options have it.
    """
    defaults = {field.name: plugins.get_default(field) for field in dataclasses.fields(config)}
    for key, other in getattr(config, "replaced_options", {}).items():
        if key in options and getattr(config, key) != defaults[key]:
            what = f"{owner} has {other} in place of {key}, and does not look at {key}"
            remedy = f"leave {key} out, or leave {other} out"
            raise origin.make_error(join(path, key), what, remedy)


def _find_outside(kind: str, name: Any, path: str, origin: Origin) -> str:
    """Return the name of a plug-in that comes from elsewhere, or refuse it."""
    folder, text = origin.find_folder(path), name if isinstance(name, str) else ""
    if found := choices.locate_outside(kind, text, folder):
        return found
    remedy = choose(name, choices.list_names(kind))
    if outside.is_file_name(text):
        remedy = f"write the path as it is seen from the folder {folder}"
    elif outside.MODULE.fullmatch(text):
        remedy = "install its package, or add its folder to PYTHONPATH; a file is written ./learner.py"
    raise origin.make_error(path, f"there is no {kind} {_format_value(name)}", remedy)


def _bind_annotated(hint: Any, value: Any, path: str, origin: Origin) -> Any:
    base, *extras = get_args(hint)
    try:
        bound = _bind_value(base, value, path, origin)
    except ConfigError:  # the new error names the bounds, too
        raise _make_value_error(value, path, origin, describe(hint)) from None
    if bound is not None and not all(extra.allows(bound) for extra in extras if isinstance(extra, Bound)):
        raise _make_value_error(value, path, origin, describe(hint))
    ceiling = find_ceiling(extras) if type(bound) is int else None
    if ceiling and not ceiling.allows(bound):
        raise _make_value_error(value, path, origin, f"{describe(hint)} and {ceiling.describe()}")
    return bound


def _bind_literal(allowed: tuple[Any, ...], value: Any, path: str, origin: Origin) -> Any:
    for choice in allowed:
        if value == choice and type(value) is type(choice):
            return choice
    raise origin.make_error(
        path, f"{path} cannot be {_format_value(value)}", choose(value, map(str, allowed))
    )


def _bind_union(hint: Any, value: Any, path: str, origin: Origin) -> Any:
    """Bind the first member that admits the value. With one member beside null, the error is that of this member."""
    if value is None and type(None) in get_args(hint):
        return None
    members = [member for member in get_args(hint) if member is not type(None)]
    if len(members) == 1:
        return _bind_value(members[0], value, path, origin)
    for member in members:
        try:
            return _bind_value(member, value, path, origin)
        except ConfigError:
            continue
    raise _make_value_error(value, path, origin, describe(hint))


def _bind_tuple(hint: Any, value: Any, path: str, origin: Origin) -> tuple:
    members = get_args(hint)
    if value is None or isinstance(value, dict):
        raise _make_value_error(value, path, origin, describe(hint))
    values = value if isinstance(value, list) else [value]
    if members[-1] is Ellipsis:
        members = members[:1] * len(values)
    if len(members) != len(values):
        raise _make_value_error(value, path, origin, describe(hint))
    places = [join(path, index) if value is values else path for index in range(len(values))]
    triples = zip(members, values, places, strict=True)
    try:
        return tuple(_bind_value(member, item, place, origin) for member, item, place in triples)
    except ConfigError:
        if not _is_bare_list(value):
            raise
        raise _make_value_error(value, path, origin, describe(hint)) from None


def _is_bare_list(value: Any) -> bool:
    """Tell whether a text looks like a list without its brackets: 0,1,5."""
    return isinstance(value, str) and "," in value


def _bind_scalar(kind: type, value: Any, path: str, origin: Origin) -> Any:
    if kind not in (bool, int, float, str):
        raise plugins.PluginError(f"{path} is annotated {kind}, which YAML cannot hold")
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    if kind is int and type(value) is float and abs(value) <= LARGEST_WHOLE and value.is_integer():
        return int(value)
    raise _make_value_error(value, path, origin, describe(kind))


def _make_value_error(value: Any, path: str, origin: Origin, expected: str) -> ConfigError:
    remedy = f"give {expected}"
    if _is_bare_list(value) and "a list" in expected:
        remedy = f"write [{value}]: {expected}"
    return origin.make_error(path, f"{path or 'the configuration'} cannot be {_format_value(value)}", remedy)


def _format_value(value: Any) -> str:
    """Return a value in YAML's words, cut to 60 characters."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case dict():
            return "a section"
        case list():
            return "a list" if len(value) > 4 else f"[{', '.join(map(_format_value, value))}]"
    return repr(value) if len(repr(value)) <= 60 else repr(value)[:59] + "…"
