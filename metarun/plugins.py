"""The folder is the registry: a module of metarun/tasks is a task family, and so on; `_helpers` are not.

A wrong config must be refused before jax starts, but the plug-ins import jax. So a module's `Config` is
first read from its source: the dataclass, and only what it needs, is executed in a module of its own,
the twin. The rule for authors: `Config` may use the standard library, `metarun.ranges`, and dataclasses,
type aliases and constants of its own file; anything else raises `PluginError`. Once jax is wanted,
`real_config` moves the twin's values into the module's own class.
"""

import ast
import builtins
import dataclasses
import functools
import importlib
import itertools
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from metarun.ranges import describe

ROOT = Path(__file__).parent
FOLDERS = {"task": ROOT / "tasks", "model": ROOT / "models", "algorithm": ROOT / "algorithms"}


class PluginError(Exception):
    """A plug-in breaks the rules of this module: a bug of metarun, not of the user's config."""


class Field(NamedTuple):
    """One option of a plug-in, for people to read."""

    name: str
    description: str  # which values it takes, in words
    default: Any  # dataclasses.MISSING where it must be given
    comment: str  # its unit or range, from the source; "" where there is none


def names(kind: str) -> list[str]:
    """Every plug-in of a kind, sorted."""
    return sorted(path.stem for path in FOLDERS[kind].glob("*.py") if not path.stem.startswith("_"))


def summary(kind: str, name: str) -> str:
    """The first line of a plug-in's docstring, without importing it."""
    docstring = ast.get_docstring(ast.parse(_source(kind, name))) or ""
    return docstring.partition("\n")[0]


def load(kind: str, name: str) -> types.ModuleType:
    """Imports a plug-in, and with it jax."""
    folder = FOLDERS[kind]
    return importlib.import_module(f"{folder.parent.name}.{folder.name}.{name}")


def real_config(kind: str, name: str, twin: Any) -> Any:
    """The module's own `Config` with the values of its twin; imports the module."""
    return _rebuild(load(kind, name), twin)


def config_class(kind: str, name: str) -> type:
    """The twin of a plug-in's `Config`, without importing the plug-in; the same class at every call."""
    return _twin(FOLDERS[kind] / f"{name}.py", _source(kind, name))


def fields(kind: str, name: str) -> list[Field]:
    """The options of a plug-in, in the order of its source."""
    config = config_class(kind, name)
    hints, comments = get_type_hints(config, include_extras=True), _comments(_source(kind, name), config)
    return [
        Field(field.name, describe(hints[field.name]), default(field), comments.get(field.name, ""))
        for field in dataclasses.fields(config)
    ]


def default(field: dataclasses.Field) -> Any:
    """The value of a dataclass field that was not given; `dataclasses.MISSING` where it must be."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _source(kind: str, name: str) -> str:
    if name not in names(kind):
        raise PluginError(f"there is no {kind} {name} in {FOLDERS[kind]}")
    return (FOLDERS[kind] / f"{name}.py").read_text("utf-8")


def _rebuild(module: types.ModuleType, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_rebuild(module, member) for member in value)
    if not dataclasses.is_dataclass(value):
        return value
    given = {f.name: _rebuild(module, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    return getattr(module, type(value).__name__)(**given)


@functools.cache
def _twin(path: Path, source: str) -> type:
    module = types.ModuleType(f"twin of {path}")
    sys.modules[module.__name__] = module  # where dataclasses and get_type_hints look names up
    statements = ast.Module(_needed(ast.parse(source), path), type_ignores=[])
    try:
        exec(compile(statements, str(path), "exec", dont_inherit=True), vars(module))
        config: Any = vars(module)["Config"]
        hints = get_type_hints(config, include_extras=True)
    except NameError as error:
        raise PluginError(f"the Config of {path} cannot be read without importing it: {error}") from error
    if not getattr(config, "__dataclass_params__", None) or not config.__dataclass_params__.frozen:
        raise PluginError(f"the Config of {path} is not a frozen dataclass")
    if "name" in hints:
        raise PluginError(f"the Config of {path} has a field `name`, which selects the module")
    return config


def _needed(tree: ast.Module, path: Path) -> list[ast.stmt]:
    """The statements that `Config` needs, in source order."""
    defined = {name: statement for statement in tree.body for name in _bound(statement)}
    kept = [statement for statement in tree.body if getattr(statement, "module", None) == "__future__"]
    waiting = ["Config"]
    while waiting:
        name = waiting.pop()
        statement = defined.get(name)
        if statement is None and hasattr(builtins, name):
            continue
        if statement is None or not _may_run(statement):
            raise PluginError(f"the Config of {path} needs {name}: see the rule in metarun/plugins.py")
        if statement not in kept:
            kept.append(statement)
            waiting += _free(statement)
    return sorted(kept, key=lambda statement: statement.lineno)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module defines."""
    match statement:
        case ast.Import(names) | ast.ImportFrom(names=names):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in names)
        case ast.ClassDef(name) | ast.FunctionDef(name):
            yield name
        case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)):
            yield name


def _may_run(statement: ast.stmt) -> bool:
    match statement:
        case ast.Import(names):
            return all(alias.name.partition(".")[0] in sys.stdlib_module_names for alias in names)
        case ast.ImportFrom(module=str(module), level=0):
            return module == "metarun.ranges" or module.partition(".")[0] in sys.stdlib_module_names
        case ast.ClassDef(decorator_list=decorators):
            return any("dataclass" in ast.unparse(decorator) for decorator in decorators)
        case ast.Assign() | ast.AnnAssign():
            return True
    return False


def _free(statement: ast.stmt) -> list[str]:
    """The names that a statement uses and does not define itself: its methods count too."""
    nodes = list(ast.walk(statement))
    used = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return [name for name in used if name not in stored | arguments]


def _comments(source: str, config: type) -> dict[str, str]:
    """The comment of every field of `config` and its bases that has one."""
    bases = {base.__name__ for base in config.__mro__}
    bodies = [
        node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name in bases
    ]
    fields = [field for body in bodies for field in body if isinstance(field, ast.AnnAssign)]
    return {ast.unparse(field.target): _comment(source.splitlines(), field) for field in fields}


def _comment(lines: list[str], field: ast.AnnAssign) -> str:
    """What stands behind a field, or within its parentheses behind its value, with the lines that continue it."""
    nodes: list[ast.stmt | ast.expr] = [field, *([field.value] if field.value else [])]
    for node in nodes:
        end = node.end_lineno or node.lineno
        behind = lines[end - 1].encode()[node.end_col_offset :].decode().strip()  # offsets count bytes
        if behind.startswith("#"):
            below = itertools.takewhile(lambda line: line.startswith("#"), map(str.strip, lines[end:]))
            return " ".join(comment.lstrip("# ") for comment in [behind, *below])
    return ""
