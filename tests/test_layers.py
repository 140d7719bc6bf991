"""The layers of the design: who may import whom. Read from the source, so that lazy imports count too."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import contracts
import pytest

ROOT = Path(contracts.plugins.__file__).parent
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = {name.removesuffix("__init__").rstrip("."): path for name, path in FILES.items()}  # "" is metarun

# What each part may import of metarun beside itself. A part that is not here may import what it likes.
FOUNDATION = {"base", "errors", "locations", "losses", "memory", "ranges", "trees"}
ALLOWED = {
    "base": set(),
    "errors": set(),
    "locations": set(),
    "memory": set(),
    "ranges": set(),
    "losses": {"base"},
    "trees": {"base"},
    "plugins": {"ranges"},
    "tasks": FOUNDATION | {"data"},
    "models": FOUNDATION,
    "algorithms": FOUNDATION,
    "config": {"errors", "plugins", "ranges"},
    "data": {"errors", "locations"},
    "runs": {"base", "errors", "locations"},
}
OWNERS = {  # the only parts that import these packages
    "flax": {"models"},
    "omegaconf": {"config"},
    "yaml": {"config"},
    "typer": {"cli"},
    "rich": {"cli"},
    "orbax": {"runs"},
    "matplotlib": {"runs"},
    "pooch": {"data"},
    "sentencepiece": {"data"},
    "sacrebleu": {"tasks"},
}


def part(module: str) -> str:
    """The file or folder of metarun that a module lies in; cli.py, cli_table.py and cli/ are one."""
    top = module.partition(".")[0]
    return "cli" if top.startswith("cli") else top


def imported(path: Path) -> Iterator[str]:
    """The absolute names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("metarun.") in MODULES else str(node.module)


def imported_of_metarun(path: Path) -> set[str]:
    """The modules of metarun that a file imports, without the package's own name."""
    return {name.removeprefix("metarun.") for name in imported(path) if name.startswith("metarun.")}


def test_the_reader_of_imports_sees_packages_modules_and_lazy_imports(tmp_path):
    source = "import flax.linen as nn\nfrom metarun import base\ndef f():\n    from metarun.losses import accuracy\n"
    (tmp_path / "module.py").write_text(source)
    assert set(imported(tmp_path / "module.py")) == {"flax.linen", "metarun.base", "metarun.losses"}
    assert {"base", "models.conv4", "data.sets.omniglot", "models"} <= set(MODULES)


@pytest.mark.parametrize("name", ALLOWED)
def test_a_part_imports_only_what_lies_below_it(name):
    members = {module: path for module, path in MODULES.items() if part(module) == name}
    assert members
    for module, path in members.items():
        beyond = {other for other in imported_of_metarun(path) if part(other) not in ALLOWED[name] | {name}}
        assert not beyond, f"metarun.{module} imports {sorted(beyond)}"


@pytest.mark.parametrize("folder", ["tasks", "models", "algorithms"])
def test_plugins_import_no_plugin_but_helpers_of_their_own_folder(folder):
    for module, path in MODULES.items():
        if part(module) == folder:
            siblings = {other for other in imported_of_metarun(path) if part(other) == folder} - {folder}
            named = {other for other in siblings if not other.partition(".")[2].startswith("_")}
            assert not named, f"metarun.{module} imports {sorted(named)}"


@pytest.mark.parametrize("package", OWNERS)
def test_a_package_is_imported_only_by_the_part_that_wraps_it(package):
    users = {
        module
        for module, path in MODULES.items()
        if any(name.partition(".")[0] == package for name in imported(path))
    }
    beyond = {module for module in users if part(module) not in OWNERS[package]}
    assert not beyond, f"{package} is imported by {sorted(beyond)}"


def test_imports_run_one_way():
    below = {part(module): set() for module in MODULES if module}
    for module, path in MODULES.items():
        if module:
            below[part(module)] |= {part(other) for other in imported_of_metarun(path)} - {part(module)}
    tuple(graphlib.TopologicalSorter(below).static_order())  # raises CycleError, which names the parts


def test_nothing_but_the_entry_point_imports_the_command_line():
    users = {
        part(module)
        for module, path in MODULES.items()
        if any(part(other) == "cli" for other in imported_of_metarun(path))
    }
    assert users <= {"cli", "__main__"}


@pytest.mark.parametrize("module", ["cli", "config", "data", "errors", "locations", "plugins", "runs"])
def test_importing_it_does_not_import_jax(module):
    if module not in MODULES:
        pytest.skip(f"there is no metarun.{module} yet")
    code = f"import sys, metarun.{module}; print(*sorted({{'jax', 'flax', 'optax'}} & set(sys.modules)))"
    assert contracts.in_subprocess(code).split() == []
