"""What is shipped: dependencies are declared and locked, and files that repeat the version repeat the same one."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import metarun

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
# Modules whose distribution has another name, or that come with another one which is declared.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "orbax": "orbax-checkpoint",
    "mlflow": "mlflow-skinny",
    "click": "typer",
    "markupsafe": "jinja2",
    "tensorboardX": "tensorboardx",
    "pillow_heif": "pillow-heif",
}


def read_names(requirements: list[str]) -> set[str]:
    """Return the names of distributions, without extras and versions, in small letters."""
    return {re.split(r"[\[<>=]", line, maxsplit=1)[0].lower() for line in requirements}


EXTRAS = PROJECT["optional-dependencies"]
ALWAYS = read_names(PROJECT["dependencies"])
SOMETIMES = read_names([line for extra in EXTRAS.values() for line in extra])


def test_every_package_that_is_imported_is_declared():
    imported = set[str]()
    for path in Path(metarun.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"metarun"}
    assert {DISTRIBUTIONS.get(name, name).lower() for name in foreign} - ALWAYS - SOMETIMES == set()


def test_only_the_extra_text_has_what_only_text_needs():
    assert read_names(EXTRAS["text"]) == {"sacrebleu", "sentencepiece"}
    assert not ALWAYS & {"sacrebleu", "sentencepiece"}


def test_the_lock_has_every_dependency_with_hashes_and_no_address():
    locked = set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", LOCK, re.MULTILINE))
    accelerators = read_names(EXTRAS["cuda12"] + EXTRAS["cuda13"] + EXTRAS["tpu"])
    assert (ALWAYS | SOMETIMES) - accelerators - {"metarun"} - locked == set()
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|--index|--find-links|\s@\s", LOCK)


def test_the_citation_has_the_version_of_the_package():
    assert f"version: {metarun.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_the_package_says_that_it_is_typed():
    assert (Path(metarun.__file__).parent / "py.typed").is_file()
