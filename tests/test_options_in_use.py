"""Every option of every plug-in is set in some config or some test: an option that nobody sets is dead, or untested."""

import functools
import re
from pathlib import Path
from typing import Any

import pytest

from metarun import plugins
from metarun.config import base_file

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
TESTS = sorted(path for path in Path(__file__).parent.rglob("test_*.py"))


def find_sections(content: Any) -> list[dict[str, Any]]:
    """Return the sections of a config that choose a plug-in, however deep they lie."""
    children = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    sections = [section for child in children for section in find_sections(child)]
    return [content, *sections] if isinstance(content, dict) and "name" in content else sections


@functools.cache
def list_sections() -> list[dict[str, Any]]:
    """Return the sections of all configs that choose a plug-in."""
    return [section for path in CONFIGS for section in find_sections(base_file.read(path).value)]


@functools.cache
def list_sources(plugin: str) -> list[str]:
    """Return the tests that name the plug-in."""
    sources = [path.read_text("utf-8") for path in TESTS if path.name != Path(__file__).name]
    return [source for source in sources if re.search(rf"\b{plugin}\b", source)]


def is_set(plugin: str, option: str) -> bool:
    """Return whether a config sets the option, or a test that names the plug-in does."""
    if any(section["name"] == plugin and option in section for section in list_sections()):
        return True
    setting = re.compile(rf"\b{option}(\s*[=:]|[\"'])")
    return any(map(setting.search, list_sources(plugin)))


def list_sharers(kind: str, plugin: str, option: str) -> list[str]:
    """Return the plug-ins that share the option by a group of metarun.options; the plug-in alone if none has it."""
    bases = plugins.read_config_class(kind, plugin).__mro__
    groups = [
        cls
        for cls in bases
        if cls.__module__ == "metarun.options" and option in vars(cls).get("__annotations__", {})
    ]
    if not groups:
        return [plugin]
    return [
        name
        for name in plugins.list_names(kind)
        if issubclass(plugins.read_config_class(kind, name), groups[-1])
    ]


@pytest.mark.parametrize("kind", plugins.FOLDERS)
def test_every_option_is_set_in_a_config_or_a_test(kind):
    dead = [
        f"{plugin}.{field.name}"
        for plugin in plugins.list_names(kind)
        for field in plugins.list_fields(kind, plugin)
        if not any(is_set(name, field.name) for name in list_sharers(kind, plugin, field.name))
    ]
    assert dead == []
