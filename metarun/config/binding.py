"""A plain mapping to frozen dataclasses, by their annotations; the first thing wrong is refused.

Annotations may be bool, int, float, str, Literal, unions, tuples, dataclasses, `Annotated` with bounds, and
`Annotated[Selection, Kind(...)]`. An int is a float, a bool is not an int, floats are finite, and one value
alone is a tuple of one.
"""

import dataclasses
import math
import types
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from metarun import plugins
from metarun.config import choices
from metarun.config.origin import Origin, choose, join
from metarun.config.selection import Kind, Selection
from metarun.errors import ConfigError
from metarun.ranges import Bound, describe

T = TypeVar("T")


def bind(section: type[T], value: Any, origin: Origin, path: str = "", owner: str = "") -> T:
    """An instance of the dataclass `section`; `owner` says whose keys these are."""
    owner = owner or (f"the section {path}" if path else "the configuration")
    fields = {field.name: field for field in dataclasses.fields(section) if field.init}  # type: ignore
    if not isinstance(value, dict):
        raise _wrong(value, path, origin, f"a section with the keys {', '.join(fields)}")
    for key in value:
        if key not in fields:
            raise origin.refuse(join(path, key), f"{owner} has no key {key}", choose(key, fields))
    hints = get_type_hints(section, include_extras=True)
    bound = {name: _field(field, hints[name], value, path, origin) for name, field in fields.items()}
    try:
        return section(**bound)
    except ValueError as error:
        what, remedy = error.args if len(error.args) == 2 else (str(error), "change one so that they agree")
        raise origin.refuse(path, what, remedy) from None


def _field(field: dataclasses.Field, hint: Any, section: dict, path: str, origin: Origin) -> Any:
    default, place = plugins.default(field), join(path, field.name)
    if field.name in section:
        return _value(hint, _with_default_name(section[field.name], default), place, origin)
    if default is dataclasses.MISSING:
        kind = _kind(hint)
        expected = f"a section with a name among {', '.join(choices.names(kind))}" if kind else describe(hint)
        raise origin.refuse(place, f"{place} is missing", f"add it: {expected}")
    return default


def _with_default_name(value: Any, default: Any) -> Any:
    """`optimizer: {learning_rate: 0.01}` means the optimizer of the default."""
    if isinstance(default, Selection) and isinstance(value, dict) and "name" not in value:
        return {"name": default.name, **value}
    return value


def _value(hint: Any, value: Any, path: str, origin: Origin) -> Any:
    if kind := _kind(hint):
        return _selection(kind, value, path, origin)
    arguments = get_args(hint)
    match get_origin(hint):
        case form if form is Annotated:
            return _bounded(hint, value, path, origin)
        case form if form is Literal:
            return _literal(arguments, value, path, origin)
        case form if form is Union or form is types.UnionType:
            return _union(hint, value, path, origin)
        case form if form is tuple:
            return _tuple(hint, value, path, origin)
    if dataclasses.is_dataclass(hint):
        return bind(hint, value, origin, path)  # type: ignore
    return _scalar(hint, value, path, origin)


def _kind(hint: Any) -> str | None:
    """What a Selection field chooses among; None for other fields."""
    extras = getattr(hint, "__metadata__", ())
    return next((extra.name for extra in extras if isinstance(extra, Kind)), None)


def _selection(kind: str, value: Any, path: str, origin: Origin) -> Selection:
    names = choices.names(kind)
    if not isinstance(value, dict):
        name = value if value in names else names[0] if names else kind
        raise origin.refuse(
            path, f"{path} cannot be {_shown(value)}", f"write it as a section: {{name: {name}}}"
        )
    if "name" not in value:
        raise origin.refuse(path, f"{path}.name is missing", f"add it: one of {', '.join(names)}")
    name, options = value["name"], {key: option for key, option in value.items() if key != "name"}
    if name not in names:
        raise origin.refuse(join(path, "name"), f"there is no {kind} {_shown(name)}", choose(name, names))
    config: Any = bind(choices.config_class(kind, name), options, origin, path, f"the {kind} {name}")
    return Selection(name, config)


def _bounded(hint: Any, value: Any, path: str, origin: Origin) -> Any:
    base, *extras = get_args(hint)
    try:
        bound = _value(base, value, path, origin)
    except ConfigError:  # say the bounds along with the type
        raise _wrong(value, path, origin, describe(hint)) from None
    if bound is not None and not all(extra.allows(bound) for extra in extras if isinstance(extra, Bound)):
        raise _wrong(value, path, origin, describe(hint))
    return bound


def _literal(allowed: tuple[Any, ...], value: Any, path: str, origin: Origin) -> Any:
    for choice in allowed:
        if value == choice and type(value) is type(choice):
            return choice
    raise origin.refuse(path, f"{path} cannot be {_shown(value)}", choose(value, map(str, allowed)))


def _union(hint: Any, value: Any, path: str, origin: Origin) -> Any:
    """The first member that admits the value; with one member beside null, that one's own error."""
    if value is None and type(None) in get_args(hint):
        return None
    members = [member for member in get_args(hint) if member is not type(None)]
    if len(members) == 1:
        return _value(members[0], value, path, origin)
    for member in members:
        try:
            return _value(member, value, path, origin)
        except ConfigError:
            continue
    raise _wrong(value, path, origin, describe(hint))


def _tuple(hint: Any, value: Any, path: str, origin: Origin) -> tuple:
    members = get_args(hint)
    if value is None or isinstance(value, dict):
        raise _wrong(value, path, origin, describe(hint))
    values = value if isinstance(value, list) else [value]
    if members[-1] is Ellipsis:
        members = members[:1] * len(values)
    if len(members) != len(values):
        raise _wrong(value, path, origin, describe(hint))
    places = [join(path, index) if value is values else path for index in range(len(values))]
    return tuple(_value(*each, origin) for each in zip(members, values, places, strict=True))


def _scalar(kind: type, value: Any, path: str, origin: Origin) -> Any:
    if kind not in (bool, int, float, str):
        raise plugins.PluginError(f"{path} is annotated {kind}, which YAML cannot hold")
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    raise _wrong(value, path, origin, describe(kind))


def _wrong(value: Any, path: str, origin: Origin, expected: str) -> ConfigError:
    return origin.refuse(path, f"{path or 'the configuration'} cannot be {_shown(value)}", f"give {expected}")


def _shown(value: Any) -> str:
    """A value in YAML's words, kept short."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case dict():
            return "a section"
        case list():
            return "a list" if len(value) > 4 else f"[{', '.join(map(_shown, value))}]"
    return repr(value) if len(repr(value)) <= 60 else repr(value)[:59] + "…"
