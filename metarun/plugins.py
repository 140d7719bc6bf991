"""The registry: each file or folder of metarun/tasks is a task family, and so on for models and algorithms.

A plug-in is a file NAME.py, or a folder NAME/ whose `__init__.py` has `Config` and `build`; names that begin with _ are
helpers of several plug-ins, and no plug-ins. Plug-ins from elsewhere obey the same rules; `metarun.outside` finds them.

Beside these two, a plug-in may have, for the contract tests and for programs that have no data:

    EXAMPLE            algorithm: its smallest setting, a `base.Example`
    example(folder)    task: writes a small data set into an empty folder, and returns the Config for it
    outline(config)    task: the family from shapes and dtypes alone, without its files

A wrong config must be refused before jax starts, but plug-ins import jax. So a plug-in's `Config` is first read from
its source: the dataclass, and only what it needs, is executed in a module of its own, the twin. Therefore `Config` may
use the standard library, the modules of `JAX_FREE`, and the dataclasses, type aliases and constants of its own file;
anything else raises `PluginError`. Once jax is needed, `make_config` moves the twin's values into the plug-in's own
class.
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

from metarun import errors, outside
from metarun.ranges import describe

ROOT = Path(__file__).parent
# What a Config may import of metarun.
JAX_FREE = ("metarun.folders", "metarun.ranges", "metarun.options", "metarun.backbones.contents")
RULE = "the rule in docs/own-code.md"
FOLDERS = {"task": ROOT / "tasks", "model": ROOT / "models", "algorithm": ROOT / "algorithms"}


class PluginError(Exception):
    """A plug-in breaks the rules of this module: a bug of metarun, if the plug-in is its own."""


class Field(NamedTuple):
    """One option of a plug-in, for people to read."""

    name: str
    description: str  # which values it takes, in words
    default: Any  # dataclasses.MISSING if it must be given
    comment: str  # its unit or range, from the source; "" if there is none


def list_names(kind: str) -> list[str]:
    """Return the names of all plug-ins of a kind, sorted: metarun's own, and what installed packages offer.

    What a package offers by a name of metarun's own is listed by its module.
    """
    own = list_own_names(kind)
    offers = outside.list_offers(kind)
    return sorted({*own, *(offer.module if name in own else name for name, offer in offers.items())})


def list_own_names(kind: str) -> list[str]:
    """Return the names of metarun's own plug-ins of a kind, sorted."""
    files = FOLDERS[kind].glob("*.py")
    folders = (path.parent for path in FOLDERS[kind].glob("*/__init__.py"))
    return sorted(path.stem for path in (*files, *folders) if not path.stem.startswith("_"))


def find_source(kind: str, name: str) -> Path:
    """Return the file with `Config` and `build`: `NAME.py`, or `NAME/__init__.py` of a plug-in with several files.

    Raises:
      PluginError: there is no such plug-in.
    """
    if name not in list_own_names(kind):
        source = outside.find_source(kind, name)
        if source is None:
            raise PluginError(f"there is no {kind} {name} in {FOLDERS[kind]}")
        return source.path
    file = FOLDERS[kind] / f"{name}.py"
    return file if file.is_file() else FOLDERS[kind] / name / "__init__.py"


def read_docstring(kind: str, name: str) -> str:
    """Return the docstring of a plug-in's module, without importing it."""
    return ast.get_docstring(ast.parse(_read_source(kind, name))) or ""


def read_summary(kind: str, name: str) -> str:
    """Return the first line of a plug-in's docstring, without importing it."""
    return read_docstring(kind, name).partition("\n")[0]


def is_outside(kind: str, name: str) -> bool:
    """Tell whether a plug-in comes from elsewhere."""
    return name not in list_own_names(kind)


def identify(kind: str, name: str) -> str:
    """Return a name that means the same code on every machine: of an outside plug-in, its label and its hash."""
    if not is_outside(kind, name):
        return name
    return f"{outside.make_label(name)}-{outside.read_code(kind, name).digest[:12]}"


def load(kind: str, name: str) -> types.ModuleType:
    """Import a plug-in, and with it jax.

    Raises:
      ConfigError: an outside plug-in cannot be imported.
    """
    if is_outside(kind, name):
        return outside.import_source(kind, name)
    folder = FOLDERS[kind]
    return importlib.import_module(f"{folder.parent.name}.{folder.name}.{name}")


def make_config(kind: str, name: str, twin: Any) -> Any:
    """Return the module's own `Config` with the values of its twin. Imports the module."""
    return _rebuild(load(kind, name), twin)


def read_config_class(kind: str, name: str) -> type:
    """Return the twin of a plug-in's `Config`, without importing the plug-in; the same class at every call.

    Raises:
      ConfigError: an outside plug-in breaks the rules of this module.
    """
    path, source = find_source(kind, name), _read_source(kind, name)
    if not is_outside(kind, name):
        return _make_twin(path, source)
    try:
        if "build" not in {bound for statement in ast.parse(source).body for bound in _list_bound(statement)}:
            raise PluginError(f"there is no function build in {path}")
        return _make_twin(path, source)
    except SyntaxError as error:
        what, place = f"this is not Python: {error.msg}", f"{path}:{error.lineno}"
        raise errors.ConfigError(what, place, "mend the line") from None
    except Exception as error:
        what = str(error) if isinstance(error, PluginError) else f"the Config cannot be read: {error}"
        remedy = f"compare it with what `metarun init {kind} NAME` writes"
        raise errors.ConfigError(what.splitlines()[0], str(path), remedy) from error


def list_fields(kind: str, name: str) -> list[Field]:
    """Return the options of a plug-in: those of shared groups first, then its own in the order of its source."""
    return describe_fields(read_config_class(kind, name))


def describe_fields(config: type) -> list[Field]:
    """Return the fields of a dataclass, for people to read."""
    hints, comments = get_type_hints(config, include_extras=True), read_comments(config)
    return [
        Field(field.name, describe(hints[field.name]), get_default(field), comments.get(field.name, ""))
        for field in dataclasses.fields(config)
    ]


def get_default(field: dataclasses.Field) -> Any:
    """Return the value of a dataclass field that is left out; `dataclasses.MISSING` if it must be there."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _read_source(kind: str, name: str) -> str:
    return outside.read_source(find_source(kind, name)).decode("utf-8")


def _rebuild(module: types.ModuleType, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_rebuild(module, member) for member in value)
    if not dataclasses.is_dataclass(value):
        return value
    values = {f.name: _rebuild(module, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    return getattr(module, type(value).__name__)(**values)


@functools.cache
def _make_twin(path: Path, source: str) -> type:
    module = types.ModuleType(f"twin of {path}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and get_type_hints look names up
    statements = ast.Module(_select_needed(ast.parse(source), path), type_ignores=[])
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


def _select_needed(tree: ast.Module, path: Path) -> list[ast.stmt]:
    """Return the statements that `Config` needs, in source order."""
    defined = {name: statement for statement in tree.body for name in _list_bound(statement)}
    kept = [statement for statement in tree.body if getattr(statement, "module", None) == "__future__"]
    waiting = ["Config"]
    while waiting:
        name = waiting.pop()
        statement = defined.get(name)
        if statement is None and hasattr(builtins, name):
            continue
        if statement is None or not _may_run(statement):
            raise PluginError(f"the Config of {path} needs {name}: see {RULE}")
        if statement not in kept:
            kept.append(statement)
            waiting += _list_free(statement)
    return sorted(kept, key=lambda statement: statement.lineno)


def _list_bound(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a module defines."""
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
            return module in JAX_FREE or module.partition(".")[0] in sys.stdlib_module_names
        case ast.ClassDef(decorator_list=decorators):
            return any("dataclass" in ast.unparse(decorator) for decorator in decorators)
        case ast.Assign() | ast.AnnAssign():
            return True
    return False


def _list_free(statement: ast.stmt) -> list[str]:
    """Return the names that a statement uses and does not define itself; its methods count too."""
    nodes = list(ast.walk(statement))
    used = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return [name for name in used if name not in stored | arguments]


def read_comments(config: type) -> dict[str, str]:
    """Return the comment of every field of `config` and its bases that has one."""
    comments: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        comments |= _find_comments(_read_class_source(cls), cls.__name__)
    return comments


def _read_class_source(cls: type) -> str:
    """Return the text of the file that defines a class: of a twin, or of a module of JAX_FREE."""
    return Path(str(sys.modules[cls.__module__].__file__)).read_text("utf-8")


def _find_comments(source: str, name: str) -> dict[str, str]:
    """Return the comments of the fields that the class of this name has in a source."""
    lines = source.splitlines()
    bodies = [
        node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name
    ]
    fields = [field for body in bodies for field in body if isinstance(field, ast.AnnAssign)]
    comments = {ast.unparse(field.target): _find_comment(lines, field) for field in fields}
    return {field: comment for field, comment in comments.items() if comment}


def _find_comment(lines: list[str], field: ast.AnnAssign) -> str:
    """Return the comment lines directly above a field, then the comment behind it."""
    above = itertools.takewhile(
        lambda line: line.startswith("#"), map(str.strip, reversed(lines[: field.lineno - 1]))
    )
    end = field.end_lineno or field.lineno
    behind = lines[end - 1].encode()[field.end_col_offset :].decode().strip()  # offsets count bytes
    comments = [*reversed(list(above)), *([behind] if behind.startswith("#") else [])]
    return " ".join(comment.lstrip("# ") for comment in comments)
