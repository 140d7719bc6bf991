"""The JSON Schema of a config file: keys, ranges, defaults and meanings, for editors.

It is made of the same dataclasses that check a config, so it cannot lag behind. It says nothing about missing keys,
because they may come from the file that a config extends, and nothing about what depends on several values: `metarun
train FILE --print-config` checks a config completely.
"""

import dataclasses
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from metarun import outside, plugins
from metarun.config import choices
from metarun.config.base_file import EXTENDS
from metarun.config.run_file import SWEEP
from metarun.config.schema import RunConfig, SingleStage
from metarun.config.selection import Kind
from metarun.config.yaml_file import REFERENCE
from metarun.ranges import Above, AtLeast, AtMost, Below, Between, Bound, find_ceiling

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NAMES: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
OUTSIDE = [{"pattern": r"\.py$"}, {"pattern": f"^(?:{outside.MODULE.pattern})$"}]
REFERENCES = {"type": "string", "pattern": f"^{REFERENCE.pattern}$"}


def make_schema() -> Schema:
    """Return the schema of a whole file, in both of its forms; imports no plug-in."""
    properties = describe_fields(RunConfig) | describe_fields(SingleStage)
    properties[EXTENDS] = {"type": "string", "description": "the file that gives all values not given here"}
    properties[SWEEP] = {"type": "object", "description": "what `metarun sweep` tries"}
    kinds = [*plugins.FOLDERS, *choices.TABLES]
    return {
        "$schema": DIALECT,
        "title": "A config of metarun",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": {kind: describe_kind(kind) for kind in kinds},
    }


def describe_fields(section: type) -> dict[str, Schema]:
    """Return the schema of each key of a section, with its default and its comment."""
    hints, comments = get_type_hints(section, include_extras=True), plugins.read_comments(section)
    properties: dict[str, Schema] = {}
    for field in dataclasses.fields(section):
        if not field.init:
            continue
        schema = describe_hint(hints[field.name])
        default = plugins.get_default(field)
        if isinstance(default, (bool, int, float, str)):
            schema = schema | {"default": default}
        if comment := comments.get(field.name):
            schema = schema | {"description": comment}
        properties[field.name] = schema
    return properties


def describe_section(section: type) -> Schema:
    """Return the schema of a section whose keys are those of a dataclass."""
    return {"type": "object", "properties": describe_fields(section), "additionalProperties": False}


def describe_kind(kind: str) -> Schema:
    """Return the schema of a section that chooses among a kind: the name says which keys there are."""
    names = choices.list_names(kind)
    branches = [
        {
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": describe_choice(kind, name),
        }
        for name in names
    ]
    known: Schema = {"enum": names}
    name = known if kind in choices.TABLES else {"type": "string", "anyOf": [known, *OUTSIDE]}
    return {"type": "object", "properties": {"name": name}, "allOf": branches}


def describe_choice(kind: str, name: str) -> Schema:
    """Return the schema of the section of one choice."""
    schema = describe_section(choices.read_config_class(kind, name))
    schema["properties"] = {"name": {"const": name}, **schema["properties"]}
    if kind not in choices.TABLES:
        schema["description"] = plugins.read_summary(kind, name)
    return schema


def describe_hint(hint: Any) -> Schema:
    """Return the schema of a value by its annotation, or a reference to another key in its place."""
    schema = _describe(hint)
    if "$ref" in schema or schema.get("type") == "object":
        return schema
    members = schema.get("anyOf", [schema])
    return {"anyOf": [*members, REFERENCES]}


def _describe(hint: Any) -> Schema:
    arguments = get_args(hint)
    match get_origin(hint):
        case form if form is Annotated:
            return _describe_annotated(*arguments)
        case form if form is Literal:
            return {"enum": list(arguments)}
        case form if form is Union or form is types.UnionType:
            members = [_describe(member) for member in arguments]
            return {"anyOf": [part for member in members for part in member.get("anyOf", [member])]}
        case form if form is tuple:
            return _describe_tuple(arguments)
    if dataclasses.is_dataclass(hint):
        return describe_section(hint)  # type: ignore[arg-type]
    return {"type": NAMES[hint]}


def _describe_annotated(base: Any, *extras: Any) -> Schema:
    for extra in extras:
        if isinstance(extra, Kind):
            return {"$ref": f"#/$defs/{extra.name}"}
    schema = _describe(base)
    bounds: Schema = {}
    for extra in extras:
        if isinstance(extra, Bound):
            bounds |= _describe_bound(extra)
    if base is int and (ceiling := find_ceiling(extras)):
        bounds |= _describe_bound(ceiling)
    return schema | bounds


def _describe_bound(bound: Bound) -> Schema:
    match bound:
        case AtLeast(least):
            return {"minimum": least}
        case AtMost(most):
            return {"maximum": most}
        case Above(below):
            return {"exclusiveMinimum": below}
        case Below(above):
            return {"exclusiveMaximum": above}
        case Between(least, most):
            return {"minimum": least, "maximum": most}
    return {}


def _describe_tuple(members: tuple[Any, ...]) -> Schema:
    """Return the schema of a list; a single value stands for a list of one."""
    if members[-1] is Ellipsis:
        one = describe_hint(members[0])
        return {"anyOf": [{"type": "array", "items": one}, *one.get("anyOf", [one])]}
    items = [describe_hint(member) for member in members]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
