"""A file and its overrides to a RunConfig, and back to text."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.config import overrides as overriding
from metarun.config import yaml_file
from metarun.config.binding import bind
from metarun.config.origin import Origin, join
from metarun.config.schema import RunConfig, SingleStage
from metarun.config.selection import Selection

STAGE_KEYS = ("model", "algorithm", "training", "copies")


def load(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The configuration of a file, or ConfigError. Imports neither jax nor any plug-in.

    The configs of task, model and algorithm are twins: see `metarun.plugins.real_config`.
    """
    parsed = yaml_file.read(Path(path))
    origin = Origin(str(path), parsed.lines)
    tree = OmegaConf.create(parsed.value)
    overriding.apply(tree, overrides, origin)
    return _bind_file(_resolve(tree, "", origin), origin)


def to_yaml(config: RunConfig) -> str:
    """The whole configuration, defaults included, as text that `load` reads back to an equal one."""
    return yaml.dump(document(config), Dumper=yaml_file.Dumper, sort_keys=False, default_flow_style=None)


def document(config: RunConfig) -> dict[str, Any]:
    """The whole configuration as plain values, laid out as a file: one stage without `stages`, where it can be."""
    shared = {
        field.name: _plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in ("task", "stages")
    }
    stages = config.stages
    single = len(stages) == 1 and stages[0].name == stages[0].algorithm.name
    stated = (
        {key: _plain(getattr(stages[0], key)) for key in STAGE_KEYS} if single else {"stages": _plain(stages)}
    )
    return {"task": _plain(config.task), **stated, **shared}


def _plain(value: Any) -> Any:
    if isinstance(value, Selection):
        return {"name": value.name, **_plain(value.config)}
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
    return [_plain(member) for member in value] if isinstance(value, tuple) else value


def _bind_file(mapping: dict[str, Any], origin: Origin) -> RunConfig:
    if "stages" not in mapping:
        return bind(SingleStage, mapping, origin).run()
    for key in STAGE_KEYS:
        if key in mapping:
            what = f"there are both stages and a {key} beside them"
            raise origin.refuse(key, what, f"move {key} into a stage, or write one stage without stages")
    return bind(RunConfig, mapping, origin)


def _resolve(node: DictConfig | ListConfig, path: str, origin: Origin) -> Any:
    """Plain values in place of every reference."""
    if isinstance(node, ListConfig):
        return [_member(node, index, path, origin) for index in range(len(node))]
    return {key: _member(node, key, path, origin) for key in node}


def _member(node: DictConfig | ListConfig, key: Any, path: str, origin: Origin) -> Any:
    place = join(path, key)
    try:
        value = node[key]
    except (OmegaConfBaseException, RecursionError) as error:
        what = str(error).partition("\n")[0]
        remedy = "let it name a key of this file that holds a value, and not itself"
        raise origin.refuse(place, f"{place} has no value: {what}", remedy) from None
    if not OmegaConf.is_config(value):
        return value
    if OmegaConf.is_interpolation(node, key):
        raise origin.refuse(place, f"{place} refers to a whole section or list", "refer to single values")
    return _resolve(value, place, origin)
