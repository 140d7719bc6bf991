"""Plug-ins from elsewhere: where their source lies, what it is made of, and how it is imported.

A name in a config that is no plug-in of metarun may be

    my_learner             an entry point of an installed package: group metarun.tasks, metarun.models or
                           metarun.algorithms, value my_package.learner
    my_package.learner     a module that Python finds
    ./learner.py           a file

Only `import_source` runs the code. `read_code` reads the files that a plug-in consists of: its own file and what it
imports from its own package, so that a run can tell whether the code is still the same.
"""

import ast
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
import types
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from metarun import errors

GROUPS = {"task": "metarun.tasks", "model": "metarun.models", "algorithm": "metarun.algorithms"}
MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
LOADED: set[str] = set()  # the files of all outside code that this process has imported


class Offer(NamedTuple):
    """A plug-in that an installed package offers."""

    module: str
    package: str  # the name of the distribution


class Source(NamedTuple):
    """Where an outside plug-in lies."""

    path: Path
    module: str | None  # its dotted name; None: it is a file of its own


class Code(NamedTuple):
    """The source of an outside plug-in, whole."""

    kind: str
    name: str  # as in the config
    files: dict[str, bytes]  # by their path below the folder that holds the file or the package

    @property
    def digest(self) -> str:
        """The SHA-256 of all files and their names. It does not depend on where they lie."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\n{len(content)}\n".encode() + content)
        return digest.hexdigest()


def is_file_name(name: str) -> bool:
    """Tell whether the name of a plug-in is the path of a file."""
    return name.endswith(".py")


def make_label(name: str) -> str:
    """Return the short name of a plug-in, for keys and files: `learner` for ./learner.py and my_package.learner."""
    if is_file_name(name):
        stem = Path(name).stem
    elif MODULE.fullmatch(name):
        stem = name.rpartition(".")[2]
    else:
        return name
    label = re.sub(r"[^a-z0-9_-]+", "_", stem.lower()).strip("_-")[:64]
    return label if label[:1].isalpha() else f"own_{label}"[:64]


@functools.cache
def list_offers(kind: str) -> dict[str, Offer]:
    """Return what the installed packages offer of a kind, by name.

    A name that several packages offer is replaced by the names of their modules.
    """
    import importlib.metadata  # here, because --help need not wait for it

    points = [
        point for point in importlib.metadata.entry_points(group=GROUPS[kind]) if MODULE.match(point.module)
    ]
    counts = Counter(point.name for point in points)
    return {
        point.name if counts[point.name] == 1 else point.module: Offer(
            point.module, point.dist.name if point.dist else "unknown"
        )
        for point in points
    }


def find_package(kind: str, name: str) -> str | None:
    """Return the distribution that offers a plug-in; None: it is no entry point."""
    offers = list_offers(kind)
    return next((offer.package for key, offer in offers.items() if name in (key, offer.module)), None)


def guess_kinds(name: str) -> list[str]:
    """Return the kind of a plug-in that is a file or a module, by the arguments of its `build`; [] if it is none."""
    source = find_source("task", name) if is_file_name(name) or MODULE.fullmatch(name) else None
    if source is None:
        return []
    arguments = {"config": "task", "config spec": "model"}
    try:
        tree = ast.parse(read_source(source.path))
    except (SyntaxError, ValueError):
        return []
    builders = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build"]
    return [
        arguments.get(" ".join(argument.arg for argument in node.args.args), "algorithm") for node in builders
    ]


def find_source(kind: str, name: str) -> Source | None:
    """Return where a plug-in lies, without running it; None: it is nowhere."""
    if is_file_name(name):
        return Source(Path(name), None) if Path(name).is_file() else None
    offers = list_offers(kind)
    module = offers[name].module if name in offers else name
    path = find_module(module) if MODULE.fullmatch(module) else None
    return Source(path, module) if path else None


def find_module(name: str) -> Path | None:
    """Return the file of a module without importing it or its packages; None: Python does not find it."""
    first, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
        for depth in range(len(rest)):
            if spec is None or spec.submodule_search_locations is None:
                return None
            whole = ".".join([first, *rest[: depth + 1]])
            spec = importlib.machinery.PathFinder.find_spec(whole, list(spec.submodule_search_locations))
    except (ImportError, ValueError):  # ValueError: a module in sys.modules that has no spec
        return None
    path = Path(spec.origin) if spec and spec.origin and spec.has_location else None
    return path if path and path.suffix == ".py" else None


def read_code(kind: str, name: str) -> Code:
    """Return the source of an outside plug-in: its file, and what this imports from its own package.

    Raises:
      ConfigError: there is no such plug-in, or it cannot be read.
    """
    source = find_source(kind, name)
    if source is None:
        raise errors.ConfigError(
            f"the code of the {kind} {make_label(name)} is not there", name, "restore it"
        )
    if source.module is None:
        return Code(kind, name, {source.path.name: read_source(source.path)})
    top = source.module.partition(".")[0]
    waiting, files = [source.module], dict[str, bytes]()
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        path = find_module(module) if "." in module else _find_package(module)
        if module in seen or path is None:
            continue
        seen.add(module)
        relative = "/".join([*module.split("."), "__init__.py"]) if path.stem == "__init__" else None
        files[relative or f"{module.replace('.', '/')}.py"] = content = read_source(path)
        package = module if path.stem == "__init__" else module.rpartition(".")[0]
        waiting += [other for other in list_imports(content, package) if other.partition(".")[0] == top]
        waiting += [module.rpartition(".")[0]] if "." in module else []
    return Code(kind, name, files)


def _find_package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def read_source(path: Path) -> bytes:
    """Return the bytes of a source file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise errors.ConfigError(
            f"the file cannot be read: {error.strerror}", str(path), "check its name and permissions"
        ) from error


def list_imports(source: bytes, package: str) -> list[str]:
    """Return the names of all modules that a source may import; a name of a `from` may be a module or not."""
    names: list[str] = []
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            above = parents[: len(parents) - node.level + 1] if node.level else []
            whole = ".".join([*above, *([node.module] if node.module else [])])
            names += [whole, *(f"{whole}.{alias.name}" for alias in node.names)]
    return names


def import_source(kind: str, name: str) -> types.ModuleType:
    """Import an outside plug-in: run its code.

    Raises:
      ConfigError: the code raises an error while it is imported.
    """
    source, code = find_source(kind, name), read_code(kind, name)
    assert source is not None  # read_code has found it
    LOADED.update({str(source.path)} if source.module is None else _list_files(source.module, code))
    try:
        if source.module is not None:
            return importlib.import_module(source.module)
        return _import_file(source.path, f"outside_{make_label(name)}_{code.digest[:8]}")
    except Exception as error:
        place = find_place(error) or str(source.path)
        what = f"the {kind} {make_label(name)} cannot be imported: {type(error).__name__}: {error}"
        raise errors.ConfigError(
            what.splitlines()[0], place, "mend the code, or install what it needs"
        ) from error


def _import_file(path: Path, module_name: str) -> types.ModuleType:
    """Import a file once for each content, so that an edited file is a new module."""
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None  # the file ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _list_files(module: str, code: Code) -> set[str]:
    """Return the paths of the files of a package's code."""
    top = _find_package(module.partition(".")[0])
    return {str(top.parent.parent / name) for name in code.files} if top else set()


def has_failed(error: BaseException) -> bool:
    """Return whether an error is that of outside code: no signal, and nothing that metarun or the system says."""
    said = isinstance(error, errors.MetarunError | OSError | MemoryError)
    return isinstance(error, Exception) and not said and find_place(error) is not None


def find_place(error: BaseException) -> str | None:
    """Return `file:line` of the last step of an error that lies in outside code; None: it touches none."""
    if isinstance(error, SyntaxError) and error.filename in LOADED:
        return f"{error.filename}:{error.lineno}"
    place, step = None, error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        place = f"{file}:{step.tb_lineno}" if file in LOADED else place
        step = step.tb_next
    return place
