"""The floors of the design: who may import whom. Read from the source, so that lazy imports count too."""

import ast
import functools
import graphlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from helpers import processes
from metarun import plugins

ROOT = Path(plugins.__file__).parent
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = {name.removesuffix("__init__").rstrip("."): path for name, path in FILES.items()}  # "" is metarun

# The parts of metarun, floor by floor from the ground. A part imports only from floors below its own.
FLOORS = (
    ("plain_text",),
    ("errors",),
    ("base", "folders", "gpu_settings", "large_pages", "progress", "ranges", "signals"),
    ("outside",),
    ("data", "losses", "numbers", "options", "plugins", "runs", "trees"),
    ("backbones", "blocks", "config", "features"),
    ("algorithms", "models", "tasks"),
    ("compilation_cache",),
    ("hardware", "meshes", "hosts", "sinks", "stages"),
    ("assembly",),
    ("evaluation",),
    ("finished", "training"),
    ("fewshot",),
    ("exported", "figures", "reports"),
    ("experiment", "testing"),
    ("sweeps",),
    ("api", "cli"),
    ("", "__main__"),
)
# Some parts import even less: only these.
NARROW = {
    "base": set(),
    "plain_text": set(),
    "errors": {"plain_text"},
    "ranges": set(),
    "folders": {"errors"},
    "gpu_settings": set(),
    "large_pages": set(),
    "losses": {"base"},
    "numbers": {"errors", "ranges", "signals"},
    "options": {"folders", "ranges"},
    "outside": {"errors", "signals"},
    "plugins": {"errors", "outside", "ranges"},
    "trees": {"base"},
    "config": {"errors", "folders", "options", "outside", "plugins", "ranges"},
    "compilation_cache": {"folders"},
    "data": {"errors", "folders", "plain_text"},
    "backbones": {"base", "data", "errors", "folders", "plugins"},
    "models": {"backbones", "base", "errors", "options", "ranges", "trees"},
    "blocks": {"base", "errors", "losses", "options", "ranges", "trees"},
    "runs": {"base", "errors", "folders", "outside", "plain_text", "signals"},
    "features": {"data", "errors", "folders"},
    "tasks": {
        *(
            "backbones",
            "base",
            "data",
            "errors",
            "features",
            "folders",
            "losses",
            "options",
            "plain_text",
            "ranges",
            "trees",
        ),
    },
    "sinks": {"config", "errors", "runs"},
    "algorithms": {"base", "blocks", "errors", "losses", "options", "ranges", "trees"},
}
# Only these parts import these packages.
OWNERS = {
    "flax": {"models"},
    "omegaconf": {"config"},
    "yaml": {"config"},
    "typer": {"cli"},
    "rich": {"cli"},
    "orbax": {"runs"},
    "jinja2": {"reports"},
    "bokeh": {"reports"},
    "matplotlib": {"figures", "testing"},  # a task family draws on the figure that it is handed
    "pooch": {"data"},
    "sentencepiece": {"data"},
    "sacrebleu": {"tasks"},
    "optuna": {"sweeps"},
    "tensorboardX": {"sinks"},
    "wandb": {"sinks"},
    "mlflow": {"sinks"},
}


def part(module: str) -> str:
    """Return the file or folder of metarun that a module lies in."""
    return module.partition(".")[0]


@functools.cache
def read_imports(path: Path) -> tuple[str, ...]:
    """Return the absolute names of all modules that a file imports, wherever in it."""
    return tuple(list_imports(ast.parse(path.read_text("utf-8"))))


def read_type_imports(path: Path) -> Iterator[str]:
    """Yield the names of the modules that a file imports for type checkers alone."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from list_imports(node)


def list_imports(tree: ast.AST) -> Iterator[str]:
    """Yield the absolute names of all modules that are imported below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{ast.unparse(node)} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("metarun.") in MODULES else str(node.module)


def keep_own(names: Iterable[str]) -> set[str]:
    """Return those of the modules that are metarun's, without the package's own name."""
    return {name.removeprefix("metarun.") for name in names if name.startswith("metarun.")}


def own_imports(path: Path) -> set[str]:
    """Return the modules of metarun that a file imports, without the package's own name."""
    return keep_own(read_imports(path))


IMPORTS = {module: own_imports(path) for module, path in MODULES.items()}


def parts_below(name: str) -> set[str]:
    """Return the parts that a part may import."""
    floor = next(index for index, floor in enumerate(FLOORS) if name in floor)
    return NARROW.get(name, {below for floor in FLOORS[:floor] for below in floor})


def test_the_reader_of_imports_sees_packages_modules_and_lazy_imports(tmp_path):
    source = "import flax.linen as nn\nfrom metarun import base\ndef f():\n    from metarun.losses import accuracy\n"
    (tmp_path / "module.py").write_text(source)
    assert set(read_imports(tmp_path / "module.py")) == {"flax.linen", "metarun.base", "metarun.losses"}
    assert {"base", "models.conv4", "data.sets.omniglot_files", "models", "algorithms.fusion"} <= set(MODULES)


def test_the_design_names_the_same_floors():
    text = (
        (ROOT.parent / "docs" / "design.md")
        .read_text("utf-8")
        .partition("## 2. Floors")[2]
        .partition("\n## ")[0]
    )
    floors: dict[int, set[str]] = {}
    for number, parts in re.findall(r"^\| +(\d*) *\| (`.*?`) \|", text, re.MULTILINE):
        floor = int(number or min(floors))
        floors.setdefault(floor, set()).update(re.findall(r"`(\w+)", parts))
    assert floors == {place: set(parts) for place, parts in enumerate(FLOORS[:-1], start=1)}


def test_every_part_stands_on_one_floor():
    floors = [name for floor in FLOORS for name in floor]
    assert sorted(floors) == sorted({part(module) for module in MODULES})
    assert set(NARROW) <= set(floors)


@pytest.mark.parametrize("name", [name for floor in FLOORS for name in floor])
def test_a_part_imports_only_what_lies_below_it(name):
    for module in [module for module in MODULES if part(module) == name]:
        above = {other for other in IMPORTS[module] if part(other) not in parts_below(name) | {name}}
        assert not above, f"metarun.{module} imports {sorted(above)}"


@pytest.mark.parametrize("narrow", NARROW)
def test_what_a_part_is_narrowed_to_lies_below_it(narrow):
    floor = next(index for index, floor in enumerate(FLOORS) if narrow in floor)
    assert NARROW[narrow] <= {below for floor in FLOORS[:floor] for below in floor}


def test_no_module_imports_itself_over_others():
    """A file in the folder of a plug-in may name the plug-in's `Config`, for type checkers alone."""
    modules = {}
    for module, path in MODULES.items():
        folder = module.rpartition(".")[0]
        modules[module] = IMPORTS[module] - {module} - (keep_own(read_type_imports(path)) & {folder})
    tuple(graphlib.TopologicalSorter(modules).static_order())  # raises CycleError, which names the modules


@pytest.mark.parametrize("kind", ["task", "model", "algorithm"])
def test_a_plugin_imports_no_other_plugin(kind):
    """It may import the files of its own folder, and helpers, whose names begin with an underscore."""
    folder = plugins.FOLDERS[kind].name
    for module in [module for module in MODULES if part(module) == folder]:
        siblings = {other.split(".")[1] for other in IMPORTS[module] if other.startswith(f"{folder}.")}
        plugin = module.split(".")[1] if "." in module else ""
        others = {name for name in siblings - {plugin} if not name.startswith("_")}
        assert not others, f"metarun.{module} imports {sorted(others)}"


@pytest.mark.parametrize("package", OWNERS)
def test_a_package_is_imported_only_by_the_part_that_wraps_it(package):
    users = {
        module
        for module, path in MODULES.items()
        if any(name.partition(".")[0] == package for name in read_imports(path))
    }
    beyond = {module for module in users if part(module) not in OWNERS[package]}
    assert not beyond, f"{package} is imported by {sorted(beyond)}"


def test_nothing_but_the_entry_point_imports_the_command_line():
    users = {module for module in MODULES if "cli" in map(part, IMPORTS[module])}
    assert {part(module) for module in users} <= {"cli", "__main__"}


@pytest.mark.parametrize(
    "module", ["cli", "config", "data", "errors", "folders", "options", "plugins", "runs"]
)
def test_importing_it_does_not_import_jax(module):
    code = f"import sys, metarun.{module}; print(*sorted({{'jax', 'flax', 'optax'}} & set(sys.modules)))"
    assert processes.run_code(code).split() == []
