"""YAML text to plain mappings, lists and scalars, with the place of every key. Refuses what can hurt.

Scalars are YAML 1.2's: only true and false are booleans (`no` is text), 1e-3 is a number, a date is text,
010 is ten. Tags, anchors, repeated keys and anything large are refused before they cost time or memory.
"""

import difflib
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from metarun.config.origin import join, make_error
from metarun.errors import ConfigError

MAX_BYTES = 2**17  # 128 KiB, many times the longest configuration that comes with metarun
MAX_VALUES = 10_000  # keys, lists and scalars in one file; PyYAML reads about 40,000 a second
MAX_DEPTH = 16
MAX_INTEGER = 2**63 - 1

REFERENCE = re.compile(r"\$\{[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\}")
SCALARS = [
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$")),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$")),
    ("tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")),
    ("tag:yaml.org,2002:float", re.compile(r"^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$")),
]


class Parsed(NamedTuple):
    """A YAML document."""

    value: Any
    places: dict[str, str]  # dotted path of every key and list item, to `file:line`; lines count from 1


class _Refused(Exception):
    """What is wrong, the line and the remedy; `parse` adds the file."""

    def __init__(self, what: str, node: yaml.Node | yaml.Event, remedy: str) -> None:
        super().__init__(what, node.start_mark.line + 1, remedy)


class _Loader(yaml.SafeLoader):
    """Composes nodes one by one, so that the bounds are checked before the rest of the file is read."""

    yaml_implicit_resolvers = {None: SCALARS}  # noqa: RUF012 (PyYAML's own convention)
    depth = 0
    values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        _check_event(event)
        self.depth += 1
        self.values += 1
        if self.depth > MAX_DEPTH + 1:  # the scalars of the deepest section count one more
            raise _Refused(f"sections are nested more than {MAX_DEPTH} deep", event, "flatten them")
        if self.values > MAX_VALUES:
            raise _Refused(
                f"there are more than {MAX_VALUES} values", event, "keep data out of the configuration"
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Dumper(yaml.SafeDumper):
    """Writes text that `parse` reads back: it quotes a text exactly if it would be read as something else."""

    yaml_implicit_resolvers = {None: SCALARS}  # noqa: RUF012 (PyYAML's own convention)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read(path: Path) -> Parsed:
    """Return the mapping of a file."""
    parsed = parse(_read_text(path), str(path))
    if not isinstance(parsed.value, dict):
        fault = "empty" if parsed.value is None else "not a mapping"
        raise make_error(
            f"the configuration is {fault}", str(path), "write `key: value` lines, as in configs/"
        )
    return parsed


def parse(text: str, where: str) -> Parsed:
    """Return any YAML value; `where` goes before the line number in places and errors."""
    lines: dict[str, int] = {}
    try:
        node = yaml.compose(text, _Loader)
        value = None if node is None else _convert(node, "", lines)
    except _Refused as error:
        what, line, remedy = error.args
        raise make_error(what, f"{where}:{line}", remedy) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets chr() and int() errors through
        raise _make_syntax_error(error, where) from None
    return Parsed(value, {path: f"{where}:{line}" for path, line in lines.items()})


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise make_error("this is not a file", str(path), suggest_sibling(path / "*.yaml"))
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise make_error("there is no such file", str(path), suggest_sibling(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise make_error(
            f"the file cannot be read: {error}", str(path), "check its name and permissions"
        ) from None
    if len(content) > MAX_BYTES:
        raise make_error("the file is larger than 128 KiB", str(path), "keep data out of the configuration")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise make_error("the file is not UTF-8 text", f"{path}:{line}", "save it as UTF-8") from None


def suggest_sibling(path: Path) -> str:
    """Return a remedy: the configuration in the same folder with the nearest name."""
    try:
        names = sorted(sibling.name for sibling in path.parent.glob("*.yaml"))
    except OSError:
        names = []
    if not names:
        return f"there is no *.yaml file in {path.parent}: check the path"
    nearest = difflib.get_close_matches(path.name, names, n=1, cutoff=0) or names
    return f"did you mean {path.parent / nearest[0]}?"


def _make_syntax_error(error: Exception, where: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    place = f"{where}:{mark.line + 1}" if mark else where
    return make_error(f"this is not YAML: {problem}", place, "check indentation, colons, quotes and brackets")


def _check_event(event: yaml.Event) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise _Refused(
            "YAML anchors and aliases are not allowed", event, "refer to a value as ${training.steps}"
        )
    if getattr(event, "tag", None):
        raise _Refused("YAML tags are not allowed", event, "remove the word that begins with !")


def _convert(node: yaml.Node, path: str, lines: dict[str, int]) -> Any:
    """Return the value of a node, and add the line of every key and list item in it to `lines`."""
    match node:
        case yaml.MappingNode():
            return _convert_mapping(node, path, lines)
        case yaml.SequenceNode():
            for index, item in enumerate(node.value):
                lines[join(path, index)] = item.start_mark.line + 1
            return [_convert(item, join(path, index), lines) for index, item in enumerate(node.value)]
    return _convert_scalar(node)


def _convert_mapping(node: yaml.MappingNode, path: str, lines: dict[str, int]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _convert(key_node, "", {})
        if not isinstance(key, str):
            raise _Refused(f"the key {str(key)[:40]} is not text", key_node, "put it in quotes, or rename it")
        if key in mapping:
            raise _Refused(f"the key {key} is given twice", key_node, "remove one of them")
        lines[join(path, key)] = key_node.start_mark.line + 1
        mapping[key] = _convert(value_node, join(path, key), lines)
    return mapping


def _convert_scalar(node: yaml.Node) -> Any:
    text = node.value
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":  # its length first: int() of a long text is slow
            if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
                raise _Refused(f"the integer {text[:20]}… is beyond 64 bits", node, f"at most {MAX_INTEGER}")
            return int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return _check_text(node)


def _check_text(node: yaml.Node) -> str:
    """Return the text as it stands. Refuse what OmegaConf would read into it, except a reference to another key."""
    text = node.value
    if text == "???":
        raise _Refused("a value is left open: ???", node, "write the value")
    if "${" in text and not REFERENCE.fullmatch(text):
        remedy = (
            "write ${training.steps} and nothing else: no resolvers, no environment variables, no text around"
        )
        raise _Refused(f"{text} is not a reference to another key", node, remedy)
    return text
