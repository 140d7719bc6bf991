"""`key=value` after the file: the value is YAML and stands in place of the file's, a whole section's too.

A key is dotted: `training.steps`, `stages.0.training.steps`, or by a list item's name
`stages.teacher.training.steps`.
"""

import re
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from metarun.config import yaml_file
from metarun.config.origin import Origin, choose, join, refusal
from metarun.errors import ConfigError

KEY = re.compile(rf"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){{0,{yaml_file.MAX_DEPTH - 1}}}")


def apply(tree: DictConfig, overrides: Iterable[str], origin: Origin) -> None:
    """Sets each override in `tree`, in order, and writes down in `origin` where it came from."""
    for override in overrides:
        key, value = _split(override)
        path = _set(tree, key.split("."), value, override)
        origin.replace(path, override)


def _split(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals:
        raise _refuse("an override needs `=`", override, "write key=value, such as training.steps=100")
    if not KEY.fullmatch(key):
        raise _refuse(
            f"{key or 'nothing'} is not a key", override, "write a dotted key, such as training.steps=100"
        )
    if not text.strip():
        raise _refuse("there is no value after `=`", override, f"write {key}=VALUE, or {key}=null for none")
    try:
        return key, yaml_file.parse(text, "").value
    except ConfigError as error:
        raise _refuse(error.what, override, error.remedy) from None


def _set(tree: DictConfig, keys: list[str], value: Any, override: str) -> str:
    """Sets one value; returns its path, with list items by index."""
    node, path = tree, ""
    for key in keys[:-1]:
        step = _step(node, key, path, override)
        path = join(path, step)
        if isinstance(node, DictConfig) and step not in node:
            node[step] = {}
        if OmegaConf.is_interpolation(node, step) or not OmegaConf.is_config(node[step]):
            raise _refuse(f"{path} is a value, not a section", override, f"write {path}=VALUE")
        node = node[step]
    step = _step(node, keys[-1], path, override)
    if _is_section(node, step) and not isinstance(value, dict):
        place = join(path, step)
        raise _refuse(
            f"{place} is a section", override, f"write {place}.KEY=VALUE, or {place}={{...}} for all of it"
        )
    node[step] = value
    return join(path, step)


def _step(node: DictConfig | ListConfig, key: str, path: str, override: str) -> Any:
    """A key of a section, or the index of a list item that is called by its index or its name."""
    if isinstance(node, DictConfig):
        return key
    known = [str(index) for index in range(len(node))]
    if key in known:
        return int(key)
    items = OmegaConf.to_container(node, resolve=False)
    called = [item.get("name") if isinstance(item, dict) else None for item in items]  # type: ignore
    if key in called:
        return called.index(key)
    words = known + [name for name in called if isinstance(name, str)]
    raise _refuse(f"{path} has no item {key}", override, choose(key, words))


def _is_section(node: DictConfig | ListConfig, step: Any) -> bool:
    present = isinstance(node, ListConfig) or step in node
    return present and not OmegaConf.is_interpolation(node, step) and isinstance(node[step], DictConfig)


def _refuse(what: str, override: str, remedy: str) -> ConfigError:
    return refusal(what, f"override {override}", remedy)
