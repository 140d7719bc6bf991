"""Overrides: `key=value` after the file. The value is YAML and replaces that of the file, even a whole section.

A key is dotted: `training.steps`, `stages.0.training.steps`, or by a list item's name
`stages.teacher.training.steps`.

A new name in a section drops the options of the old choice, and a warning says which: `model.name=conv4` over a file
with another model. The options of a group that both choices share stay, such as the learning rate of every optimizer,
and so do options that an earlier override has set.
"""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from metarun.config import choices, yaml_file
from metarun.config import origin as origins
from metarun.config.base_file import EXTENDS
from metarun.config.origin import Origin, choose, join
from metarun.errors import ConfigError

KEY = re.compile(rf"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){{0,{yaml_file.MAX_DEPTH - 1}}}")
# Options of commands that people write as keys, and how they are written.
OPTIONS = {
    **dict.fromkeys(("run_dir", "run-dir", "out", "out_dir", "output", "output_dir"), "--run-dir PLACE"),
    **dict.fromkeys(("dry_run", "dry-run"), "--dry-run"),
    "resume": "--resume",
    "split": "--split SPLIT",
    "mode": "--mode MODE",
    "stage": "--stage STAGE",
}

logger = logging.getLogger("metarun")


def apply(tree: DictConfig, overrides: Iterable[str], origin: Origin) -> None:
    """Set each override in `tree`, in order, and record in `origin` where the value came from."""
    for override in overrides:
        key, value = _split(override)
        _drop_old_options(tree, key.split("."), value, origin, override)
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
    if key in OPTIONS:
        what = f"{key} is an option of some commands, not a key of the configuration"
        raise _make_error(what, override, f"write {OPTIONS[key]} if the command has it")
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
        is_name = keys[-1] in choices.list_kinds() and isinstance(value, str)
        remedy = f"write {place}.name={value}, " if is_name else f"write {place}.KEY=VALUE, "
        remedy += f"or {place}={{...}} for all of it"
        raise _make_error(f"{place} is a section", override, remedy)
    node[step] = value
    return join(path, step)


def _drop_old_options(tree: DictConfig, keys: list[str], value: Any, origin: Origin, override: str) -> None:
    """Drop the options of another choice from the section whose name an override sets, and say so."""
    if keys[-1] != "name" or len(keys) < 2 or keys[-2] not in choices.list_kinds():
        return
    kind, path = keys[-2], ""
    section: Any = tree
    for key in keys[:-1]:
        step = _find_step(section, key, path, override)
        path = join(path, step)
        if isinstance(section, DictConfig) and step not in section:
            return
        if OmegaConf.is_interpolation(section, step) or not OmegaConf.is_config(section[step]):
            return
        section = section[step]
    if isinstance(section, ListConfig) or OmegaConf.is_interpolation(section, "name"):
        return
    old = section.get("name", choices.DEFAULTS.get(kind))
    if old == value or not _is_choice(kind, value):
        return
    kept = {"name", *choices.list_shared_options(kind, old, value)}
    options = (str(key) for key in section if key not in kept)
    stale = [key for key in options if not origin.is_overridden(join(path, key))]
    for key in stale:
        del section[key]
    if stale:
        logger.warning("%s drops %s of %s", override, ", ".join(join(path, key) for key in stale), old)


def _is_choice(kind: str, name: Any) -> bool:
    if not isinstance(name, str):
        return False
    return name in choices.list_names(kind) or choices.locate_outside(kind, name, Path.cwd()) is not None


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
