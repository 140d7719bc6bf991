"""A file and its overrides to a RunConfig, and back to text."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.config import base_file, binder, yaml_file
from metarun.config import overrides as override_list
from metarun.config.origin import Origin, join
from metarun.config.schema import RunConfig, SingleStage
from metarun.config.selection import Selection

STAGE_KEYS = ("model", "algorithm", "training", "copies")


def load(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Return the configuration of a file; imports neither jax nor any plug-in.

    The file is merged with the one that it extends, then the overrides apply, then references are replaced by
    values. The configs of task, model and algorithm are twins: see `metarun.plugins.make_config`.

    Raises:
      ConfigError: the first thing that is wrong.
    """
    parsed = base_file.read(Path(path))
    origin = Origin(str(path), parsed.places)
    tree = OmegaConf.create(parsed.value)
    override_list.apply(tree, overrides, origin)
    return _bind_file(_resolve(tree, "", origin), origin)


def to_yaml(config: RunConfig) -> str:
    """Write the whole configuration, defaults included, as text that `load` reads back to an equal one."""
    return yaml.dump(document(config), Dumper=yaml_file.Dumper, sort_keys=False, default_flow_style=None)


def document(config: RunConfig) -> dict[str, Any]:
    """Return the whole configuration as plain values, laid out as a file.

    A single stage that is named as its algorithm is written without `stages`.
    """
    shared = {
        field.name: _to_plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in ("task", "stages")
    }
    stages = config.stages
    single = len(stages) == 1 and stages[0].name == stages[0].algorithm.name
    training = (
        {key: _to_plain(getattr(stages[0], key)) for key in STAGE_KEYS}
        if single
        else {"stages": _to_plain(stages)}
    )
    return {"task": _to_plain(config.task), **training, **shared}


def _to_plain(value: Any) -> Any:
    if isinstance(value, Selection):
        return {"name": value.name, **_to_plain(value.config)}
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return {name: _to_plain(getattr(value, name)) for name in fields}
    return [_to_plain(member) for member in value] if isinstance(value, tuple) else value


def _bind_file(mapping: dict[str, Any], origin: Origin) -> RunConfig:
    if "stages" not in mapping:
        return binder.bind(SingleStage, mapping, origin).to_run()
    for key in STAGE_KEYS:
        if key in mapping:
            what = f"there are both stages and a {key} beside them"
            remedy = f"move {key} into a stage, or write one stage without stages"
            raise origin.make_error(key, what, remedy)
    return binder.bind(RunConfig, mapping, origin)


def _resolve(node: DictConfig | ListConfig, path: str, origin: Origin) -> Any:
    """Return plain values, with the referenced value in place of every reference."""
    if isinstance(node, ListConfig):
        return [_resolve_member(node, index, path, origin) for index in range(len(node))]
    return {key: _resolve_member(node, key, path, origin) for key in node}


def _resolve_member(node: DictConfig | ListConfig, key: Any, path: str, origin: Origin) -> Any:
    place = join(path, key)
    try:
        value = node[key]
    except (OmegaConfBaseException, RecursionError) as error:
        what = str(error).partition("\n")[0]
        remedy = "let it name a key of this file that holds a value, and not itself"
        raise origin.make_error(place, f"{place} has no value: {what}", remedy) from None
    if not OmegaConf.is_config(value):
        return value
    if OmegaConf.is_interpolation(node, key):
        raise origin.make_error(place, f"{place} refers to a whole section or list", "refer to single values")
    return _resolve(value, place, origin)
