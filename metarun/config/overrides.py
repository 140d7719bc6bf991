"""Overrides: `key=value` after the file. The value is YAML and replaces that of the file, even a whole section.

A key is dotted: `training.steps`, `stages.0.training.steps`, or by a list item's name
`stages.teacher.training.steps`.
"""

import re
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from metarun.config import origin as origins
from metarun.config import yaml_file
from metarun.config.base_file import EXTENDS
from metarun.config.origin import Origin, choose, join
from metarun.errors import ConfigError

KEY = re.compile(rf"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){{0,{yaml_file.MAX_DEPTH - 1}}}")


def apply(tree: DictConfig, overrides: Iterable[str], origin: Origin) -> None:
    """Set each override in `tree`, in order, and record in `origin` where the value came from."""
    for override in overrides:
        key, value = _split(override)
        path = _set(tree, key.split("."), value, override)
        origin.replace(path, override)


def _split(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals:
        raise _make_error("an override needs `=`", override, "write key=value, such as training.steps=100")
    if not KEY.fullmatch(key):
        what = f"{key or 'nothing'} is not a key"
        raise _make_error(what, override, "write a dotted key, such as training.steps=100")
    if key.split(".")[0] == EXTENDS:
        raise _make_error(
            "extends cannot be overridden", override, "write extends: FILE in the configuration"
        )
    if not text.strip():
        raise _make_error(
            "there is no value after `=`", override, f"write {key}=VALUE, or {key}=null for none"
        )
    try:
        return key, yaml_file.parse(text, "").value
    except ConfigError as error:
        raise _make_error(error.what, override, error.remedy) from None


def _set(tree: DictConfig, keys: list[str], value: Any, override: str) -> str:
    """Set one value, and return its path, which has list items by index."""
    node, path = tree, ""
    for key in keys[:-1]:
        step = _find_step(node, key, path, override)
        path = join(path, step)
        if isinstance(node, DictConfig) and step not in node:
            node[step] = {}
        if OmegaConf.is_interpolation(node, step) or not OmegaConf.is_config(node[step]):
            raise _make_error(f"{path} is a value, not a section", override, f"write {path}=VALUE")
        node = node[step]
    step = _find_step(node, keys[-1], path, override)
    if _is_section(node, step) and not isinstance(value, dict):
        place = join(path, step)
        remedy = f"write {place}.KEY=VALUE, or {place}={{...}} for all of it"
        raise _make_error(f"{place} is a section", override, remedy)
    node[step] = value
    return join(path, step)


def _find_step(node: DictConfig | ListConfig, key: str, path: str, override: str) -> Any:
    """Return a key of a section, or the index of the list item that has this index or name."""
    if isinstance(node, DictConfig):
        return key
    indices = [str(index) for index in range(len(node))]
    if key in indices:
        return int(key)
    items: Any = OmegaConf.to_container(node, resolve=False)
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if key in names:
        return names.index(key)
    words = indices + [name for name in names if isinstance(name, str)]
    raise _make_error(f"{path} has no item {key}", override, choose(key, words))


def _is_section(node: DictConfig | ListConfig, step: Any) -> bool:
    present = isinstance(node, ListConfig) or step in node
    return present and not OmegaConf.is_interpolation(node, step) and isinstance(node[step], DictConfig)


def _make_error(what: str, override: str, remedy: str) -> ConfigError:
    return origins.make_error(what, f"override {override}", remedy)
