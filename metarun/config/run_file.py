"""A file and its overrides to a RunConfig, and back to text."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.config import (
    base_file,
    binder,
    footprint,
    foreign_stages,
    plain_values,
    shipped,
    trials,
    yaml_file,
)
from metarun.config import overrides as override_list
from metarun.config.origin import Origin, join, make_error
from metarun.config.schema import RunConfig, SingleStage, Stage
from metarun.config.selection import Selection
from metarun.errors import ConfigError

SWEEP = "sweep"  # the section that `metarun sweep` alone reads
STAGE_KEYS = ("model", "algorithm", "training", "copies", "init_from")
SOURCES = ("init_from", "taken_from")  # written only where a stage has one: most have none


def load(
    path: str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    locate: foreign_stages.Locate | None = None,
) -> RunConfig:
    """Return the configuration of a file; imports neither jax nor any plug-in.

    A path that is no file may be the name of a config that comes with metarun, such as `sinusoid/maml`.
    The file is merged with the one that it extends, then the overrides apply, then references are replaced by
    values. The configs of task, model and algorithm are twins: see `metarun.plugins.make_config`.

    Args:
      path: of the file, its name, or the values that a file would have.
      locate: finds the stages of other runs that the file names. None: they are left as they are, as in the config of
        a run, which has all that is needed.

    Raises:
      ConfigError: the first thing that is wrong.
      MetarunError: what `locate` raises.
    """
    if isinstance(path, Mapping):
        place, parsed = plain_values.NAME, plain_values.read(path)
    else:
        place = str(shipped.find_file(path))
        parsed = base_file.read(Path(place))
    parsed.value.pop(SWEEP, None)
    origin = Origin(place, parsed.places)
    tree = OmegaConf.create(parsed.value)
    override_list.apply(tree, overrides, origin)
    reader = foreign_stages.Reader(locate, load, _to_plain)
    return _bind_file(*foreign_stages.fill_in(_resolve(tree, "", origin), origin, reader))


def to_yaml(config: RunConfig) -> str:
    """Write the whole configuration, defaults included, as text that `load` reads back to an equal one.

    Raises:
      ConfigError: it is longer than `load` takes.
    """
    text = yaml.dump(document(config), Dumper=yaml_file.Dumper, sort_keys=False, default_flow_style=None)
    if (size := len(text.encode())) > yaml_file.MAX_BYTES:
        what = f"with all its defaults the configuration has {size:,} bytes, and {yaml_file.MAX_BYTES:,} are allowed"
        raise make_error(what, "the whole configuration", "divide its stages or trials among several runs")
    return text


def document(config: RunConfig) -> dict[str, Any]:
    """Return the whole configuration as plain values, laid out as a file.

    A single stage that is named as its algorithm is written without `stages`.
    """
    shared = {
        field.name: _to_plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in ("task", "stages")
    }
    if not config.controls:  # most runs have none
        del shared["controls"]
    stages = config.stages
    single = len(stages) == 1 and stages[0].name == stages[0].algorithm.label
    plain = _to_plain(stages)
    if single and stages[0].taken_from is None:
        training = {key: plain[0][key] for key in STAGE_KEYS if key in plain[0]}
    else:
        training = {"stages": plain}
    return {"task": _to_plain(config.task), **training, **shared}


def _to_plain(value: Any) -> Any:
    if isinstance(value, Selection):
        return {"name": value.name, **_to_plain(value.config)}
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        plain = {name: _to_plain(getattr(value, name)) for name in names}
        omitted = SOURCES if isinstance(value, Stage) else ()
        return {name: inner for name, inner in plain.items() if inner is not None or name not in omitted}
    return [_to_plain(member) for member in value] if isinstance(value, tuple) else value


def make_trial_config(config: RunConfig, place: int) -> RunConfig:
    """Return the config of the single run that is one of the trials of a run; without trials, `config` itself.

    Args:
      place: of the trial, from 0.

    Raises:
      ConfigError: a number is of no stage, or its option does not allow the value.
    """
    return _bind_trial(config, place, Origin("the trials of the run", {}))


def settle_trials(config: RunConfig) -> RunConfig:
    """Check every trial, and return the config with the seed and the numbers of the first trial as its own.

    Raises:
      ConfigError: see `make_trial_config`.
    """
    return _settle_trials(config, Origin("the trials of the run", {}))


def _settle_trials(config: RunConfig, origin: Origin) -> RunConfig:
    if config.trials is None:
        return config
    whole = document(config)
    with binder.remember_selections():
        first, *_ = [_bind_trial(config, place, origin, whole) for place in range(config.replicas)]
    return dataclasses.replace(config, stages=first.stages, seed=first.seed)


def _bind_trial(
    config: RunConfig, place: int, origin: Origin, whole: dict[str, Any] | None = None
) -> RunConfig:
    """Return the config of a trial; `whole` is the document of `config`, if it is there already."""
    if config.trials is None:
        return config
    try:
        mapping = trials.make_trial(whole or document(config), config.trials, place)
        return _bind_form(mapping, Origin("", {}))
    except ValueError as error:
        what, *remedy = error.args
        raise origin.make_error("trials", what, *(remedy or ["change it"])) from None
    except ConfigError as error:
        raise origin.make_error("trials", f"trial {place}: {error.what}", error.remedy) from None


def _bind_file(mapping: dict[str, Any], origin: Origin) -> RunConfig:
    config = _bind_form(mapping, origin)
    footprint.check(config, origin)
    return _settle_trials(config, origin)


def _bind_form(mapping: dict[str, Any], origin: Origin) -> RunConfig:
    if "stages" not in mapping:
        single = binder.bind(SingleStage, _complete_stage(mapping, "", origin), origin)
        try:
            return single.to_run()
        except ValueError as error:
            said, *remedies = error.args
            raise origin.make_error("algorithm", said, *(remedies or ["change it"])) from None
    for key in STAGE_KEYS:
        if key in mapping:
            what = f"there are both stages and a {key} beside them"
            remedy = f"move {key} into a stage, or write one stage without stages"
            raise origin.make_error(key, what, remedy)
    stages = mapping["stages"]
    if isinstance(stages, list):
        items = [_complete_stage(item, join("stages", place), origin) for place, item in enumerate(stages)]
        mapping = {**mapping, "stages": items}
    return binder.bind(RunConfig, mapping, origin)


def _complete_stage(stage: Any, path: str, origin: Origin) -> Any:
    """Add one step of training to a stage that says nothing of steps and has nothing to train."""
    if not isinstance(stage, dict) or "algorithm" not in stage:
        return stage
    training = stage.get("training", {})
    if not isinstance(training, dict) or "steps" in training:
        return stage
    algorithm = binder.bind_selection("algorithm", stage["algorithm"], join(path, "algorithm"), origin)
    if not getattr(algorithm.config, "trains_nothing", False):
        return stage
    return {**stage, "training": {"steps": 1, **training}}


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
