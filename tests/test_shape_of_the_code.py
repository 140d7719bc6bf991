"""The shape of the code: one name for one module, and short functions and modules. Read from the source."""

import ast
from collections import defaultdict
from pathlib import Path

from metarun import plugins

ROOT = Path(plugins.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if not path.stem.startswith("__"))
PACKAGES = sorted(path.parent for path in ROOT.rglob("__init__.py") if path.parent != ROOT)
LONGEST_MODULE = 300  # lines
LONGEST_FUNCTION = 70  # lines
SHORT_FUNCTION = 24  # lines, which nine functions in ten keep to


def function_lengths() -> dict[str, int]:
    """Return {file:line and name: lines} of every function, those inside of others too."""
    return {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_no_two_modules_have_one_name():
    """A file of cli/ may have the name of a package: it is named after its command."""
    places = defaultdict(list)
    commands = [path for path in FILES if path.parent.name == "cli"]
    for path in FILES + PACKAGES:
        places[path.stem.removeprefix("_")].append(path)
    for path in commands:
        places[path.stem] = [other for other in places[path.stem] if other not in PACKAGES]
    shared = {name: [str(path) for path in paths] for name, paths in places.items() if len(paths) > 1}
    assert shared == {}


def test_no_module_is_longer_than_a_reader_keeps_in_mind():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_functions_are_short():
    lengths = function_lengths()
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}
    longer = [length for length in lengths.values() if length > SHORT_FUNCTION]
    assert len(longer) <= 0.1 * len(lengths), f"{len(longer)} of {len(lengths)} functions"
