"""The folder is the registry, and a Config is read without importing what stands around it."""

import dataclasses
import sys
import typing
from pathlib import Path

import pytest

from metarun import plugins
from metarun.ranges import Above, AtLeast, AtMost, Below, Between, describe

MAML = '''"""MAML: gradient steps from a learned start.

More about it.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import jax_is_not_here.numpy as jnp
from metarun.ranges import Above, AtLeast

Order = Literal["first", "second"]
STEPS = 5
TABLE = jnp.zeros(3)


@dataclass(frozen=True)
class Line:
    slope: float = 1.0  # per unit

    def __post_init__(self):
        if self.slope < 0:
            raise ValueError("slope is negative")


@dataclass(frozen=True)
class Config:
    """Options."""

    inner_lr: Annotated[float, Above(0)]  # inner learning rate, above 0: µ in the paper
    # Gradient steps on the support,
    # in training
    inner_steps: Annotated[int, AtLeast(1)] = STEPS  # and in evaluation
    order: Order = "second"
    lines: tuple[Line, ...] = field(default_factory=lambda: (Line(),))  # one a head


def build(config, model, objective, earlier):
    return jnp.zeros(config.inner_steps)
'''


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes algorithms into a folder that stands for metarun/algorithms."""
    folder = tmp_path / "other_package" / "algorithms"
    folder.mkdir(parents=True)
    monkeypatch.setitem(plugins.FOLDERS, "algorithm", folder)
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, source: str) -> None:
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source, "utf-8")

    yield write
    for module in [name for name in sys.modules if name.startswith("other_package")]:
        del sys.modules[module]


def test_the_folder_is_the_registry_and_helpers_are_not_in_it(registry):
    for name in ("reptile", "_gradients", "__init__", "maml"):
        registry(name, "")
    assert plugins.list_names("algorithm") == ["maml", "reptile"]


def test_the_summary_is_the_first_line_of_the_docstring(registry):
    registry("maml", MAML)
    registry("silent", "x = 1")
    assert plugins.read_summary("algorithm", "maml") == "MAML: gradient steps from a learned start."
    assert plugins.read_summary("algorithm", "silent") == ""


def test_a_config_is_read_without_importing_its_module(registry):
    registry("maml", MAML)  # whose import would fail
    config = plugins.read_config_class("algorithm", "maml")
    assert config(inner_lr=0.1).inner_steps == 5
    assert typing.get_type_hints(config)["order"] == typing.Literal["first", "second"]
    assert config is plugins.read_config_class("algorithm", "maml")


def test_an_edited_module_gives_its_new_config(registry):
    registry("maml", MAML)
    before = plugins.read_config_class("algorithm", "maml")(inner_lr=0.1)
    registry("maml", MAML.replace("STEPS = 5", "STEPS = 7"))
    after = plugins.read_config_class("algorithm", "maml")(inner_lr=0.1)
    assert (before.inner_steps, after.inner_steps) == (5, 7)


def test_fields_carry_words_default_and_comment_of_the_source(registry):
    registry("maml", MAML)
    learning_rate, steps, order, lines = plugins.list_fields("algorithm", "maml")
    assert learning_rate == (
        "inner_lr",
        "a number, above 0",
        dataclasses.MISSING,
        "inner learning rate, above 0: µ in the paper",
    )
    assert steps == (
        "inner_steps",
        "a whole number, at least 1",
        5,
        "Gradient steps on the support, in training and in evaluation",
    )
    assert order == ("order", "one of first, second", "second", "")
    assert [line.slope for line in lines.default] == [1.0]


def test_the_fields_of_a_base_class_carry_their_comments_too(registry):
    source = "@dataclass(frozen=True)\nclass Base:\n    width: int = 1  # pixels\n"
    source = (
        f"from dataclasses import dataclass\n{source}@dataclass(frozen=True)\nclass Config(Base):\n    pass\n"
    )
    registry("maml", source)
    assert plugins.list_fields("algorithm", "maml") == [("width", "a whole number", 1, "pixels")]


def test_a_config_may_inherit_options_that_several_plugins_share(registry):
    source = (
        "from dataclasses import dataclass\nfrom metarun.options import InnerSteps\n@dataclass(frozen=True)\n"
    )
    registry("maml", f"{source}class Config(InnerSteps):\n    inner_lr: float = 0.5  # its own step size\n")
    steps, rate, *_ = plugins.list_fields("algorithm", "maml")
    assert (steps.name, steps.default) == ("inner_steps", 1)
    assert steps.comment.startswith("gradient steps on the support")
    assert (rate.name, rate.default, rate.comment) == ("inner_lr", 0.5, "its own step size")


def test_a_folder_is_a_plugin_as_a_file_is_and_its_other_files_are_none(registry):
    registry("maml", MAML)
    registry("fusion/__init__", MAML)
    registry("fusion/soup", MAML)
    registry("_shared/__init__", MAML)
    assert plugins.list_names("algorithm") == ["fusion", "maml"]
    assert plugins.read_summary("algorithm", "fusion") == plugins.read_summary("algorithm", "maml")
    assert plugins.list_fields("algorithm", "fusion")[:3] == plugins.list_fields("algorithm", "maml")[:3]


def test_annotations_may_be_postponed(registry):
    registry("maml", MAML.replace('"""\n\nfrom', '"""\n\nfrom __future__ import annotations\n\nfrom'))
    assert plugins.list_fields("algorithm", "maml")[1].description == "a whole number, at least 1"


@pytest.mark.parametrize("kind", plugins.FOLDERS)
def test_every_plugin_of_metarun_has_a_summary_and_a_commented_config(kind):
    for name in plugins.list_names(kind):
        assert plugins.read_summary(kind, name), name
        uncommented = [field.name for field in plugins.list_fields(kind, name) if not field.comment]
        assert not uncommented, f"{kind} {name}: {uncommented}"


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("there is no Config", "x = 1"),
        ("Config is not a dataclass", "class Config:\n    x: int = 1"),
        (
            "Config is not frozen",
            "from dataclasses import dataclass\n@dataclass\nclass Config:\n    x: int = 1",
        ),
        ("a default needs an import", MAML.replace("= STEPS", "= jnp.ones(1)")),
        ("an assignment needs an import", MAML.replace("STEPS = 5", "STEPS = jnp.ones(1)")),
        ("a method needs an import", MAML.replace("self.slope < 0", "jnp.any(self.slope < 0)")),
        ("a default needs a function", MAML.replace("= STEPS", "= build(1, 2, 3, 4)")),
        ("a name is nowhere", MAML.replace("= STEPS", "= STEP")),
        ("an annotation in quotes is nowhere", MAML.replace("order: Order", 'order: "Odrer"')),
        (
            "a name is used before it exists",
            MAML.replace("STEPS = 5", "").replace("def build", "STEPS = 5\ndef build"),
        ),
        ("a field is called name", MAML.replace("order: Order", "name: str")),
    ],
)
def test_a_config_that_cannot_stand_alone_is_a_plugin_error(claim, source, registry):
    registry("maml", source)
    with pytest.raises(plugins.PluginError, match=r"maml\.py"):
        plugins.read_config_class("algorithm", "maml")


@pytest.mark.parametrize("name", ["../maml", "missing", "_gradients", ""])
def test_only_names_of_the_folder_are_read(name, registry):
    registry("_gradients", MAML)
    with pytest.raises(plugins.PluginError, match="there is no algorithm"):
        plugins.read_config_class("algorithm", name)


def test_the_real_config_is_of_the_modules_own_classes_and_equal_in_value(registry):
    registry(
        "maml",
        MAML.replace("import jax_is_not_here.numpy as jnp\n", "").replace("TABLE = jnp.zeros(3)\n", ""),
    )
    twin_class = plugins.read_config_class("algorithm", "maml")
    twin = twin_class(inner_lr=0.1, order="first")
    real = plugins.make_config("algorithm", "maml", twin)
    module = plugins.load("algorithm", "maml")
    assert isinstance(real, module.Config) and not isinstance(real, twin_class)
    assert isinstance(real.lines[0], module.Line)
    assert dataclasses.asdict(real) == dataclasses.asdict(twin)


@pytest.mark.parametrize(
    ("bound", "words", "inside", "outside"),
    [
        (AtLeast(1), "at least 1", [1, 2], [0]),
        (Above(0), "above 0", [1e-9], [0, -1]),
        (AtMost(1), "at most 1", [1, 0], [1.1]),
        (Below(1), "below 1", [0.99], [1]),
        (Between(0, 1), "between 0 and 1", [0, 0.5, 1], [-0.1, 1.1]),
    ],
)
def test_a_bound_says_what_it_allows(bound, words, inside, outside):
    assert bound.describe() == words
    assert all(map(bound.allows, inside)) and not any(map(bound.allows, outside))


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (typing.Annotated[float, Above(0), AtMost(1)], "a number, above 0 and at most 1"),
        (int | None, "a whole number, or null"),
        (typing.Optional[bool], "true or false, or null"),  # noqa: UP045 (the other spelling of a union)
        (tuple[str, ...], "a list, each text"),
        (tuple[float, float], "a list of 2: a number; a number"),
        (typing.Literal["mean"], "mean"),
        (Path, str(Path)),
    ],
)
def test_every_annotation_has_words(annotation, words):
    assert describe(annotation) == words
