"""From a config to its task family and its built stages, once for each run.

Once they are built, what lies above works on `Tasks` and `Stage`, and looks up no stage in a config.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from metarun import base, config, errors, numbers, outside, plugins
from metarun.base import PyTree
from metarun.config import Selection
from metarun.config.trials import name_number
from metarun.data import fingerprints
from metarun.numbers import Numbers
from metarun.outside import Code
from metarun.stages import Stage, config_errors

# What the task family of a run has kept, or None; see `base.TaskFamily.kept`.
Kept = Mapping[str, Any] | None


class Tasks(NamedTuple):
    """The task family of a run with its data: as it is trained on, and as it is evaluated."""

    family: base.TaskFamily  # as it is trained on
    # As it is evaluated, perhaps with other ways, shots and queries. It shares the data, and has none of its own then.
    evaluated: base.TaskFamily
    data: dict[str, PyTree]  # {split: arrays}, on the device
    # The options that the frozen episodes depend on beside their keys; a part of their hash.
    recipe: dict[str, Any]


def build_stages(run_config: config.RunConfig, problem: base.Problem) -> list[Stage]:
    """Return the stages of a run in their order. Their algorithms are built when they are first asked for."""
    run_config = config.settle_trials(run_config)
    stages: list[Stage] = []
    places: dict[str, int] = {}  # {stage: the place whose random numbers it draws}
    for index, settings in enumerate(run_config.stages):
        places[settings.name] = index if settings.draws_as is None else places[settings.draws_as]
        stage = Stage(
            settings=settings,
            problem=problem,
            earlier=tuple(stages),
            axes=name_axes(run_config, settings),
            seed=run_config.seed,
            draws_as=places[settings.name],
            adapted_steps=choose_adapted_steps(run_config, settings),
            trials=run_config.trials,
            differing=list_differing(run_config, index),
        )
        stages.append(stage)
    return stages


def read_outside_code(run_config: config.RunConfig) -> list[Code]:
    """Return the code of every plug-in of a run that comes from elsewhere, each once."""
    selections = [("task", run_config.task)]
    for stage in run_config.stages:
        selections += [("model", stage.model), ("algorithm", stage.algorithm)]
    names = dict.fromkeys((kind, selection.name) for kind, selection in selections)
    return [outside.read_code(*name) for name in names if plugins.is_outside(*name)]


def list_differing(run_config: config.RunConfig, index: int) -> Numbers:
    """Return {"maml/algorithm.inner_lr": [replica]}: in what the trials of a run differ up to a stage.

    The training of an earlier stage is over, so its numbers do not count.
    """
    if run_config.trials is None or run_config.replicas == 1:
        return {}
    names = [stage.name for stage in run_config.stages]
    differing: dict[str, np.ndarray] = {}
    for number in run_config.trials.numbers:
        stage, path = name_number(number.path, names)
        is_earlier = stage in names[:index] and not path.startswith("training.")
        if stage == names[index] or is_earlier:
            whole = path.rpartition(".")[2] in numbers.STEPS
            differing[f"{stage}/{path}"] = np.array(number.values, int if whole else float)
    return differing


def name_axes(run_config: config.RunConfig, settings: config.Stage) -> dict[str, int]:
    """Return the leading axes of a stage's weights in their order, each with its size."""
    replicas = {"replica": run_config.replicas} if run_config.replicas > 1 else {}
    members = {} if settings.copies is None else {"member": settings.copies}
    return replicas | members


def choose_adapted_steps(run_config: config.RunConfig, settings: config.Stage) -> int | None:
    """Return the inner steps of the adapted learner of a stage; None: its algorithm has no inner steps."""
    if not has_option(settings.algorithm, "inner_steps"):
        return None
    steps: int = run_config.evaluation.adapted_steps or settings.algorithm.config.inner_steps
    return steps


def build_tasks(run_config: config.RunConfig, device: jax.Device, kept: Kept = None) -> Tasks:
    """Build the task family and put its data on the device, once for training and evaluation.

    Args:
      kept: of the run that is resumed or measured.

    Raises:
      ConfigError: the family refuses its options.
      DataError: the data cannot be read, or are not those of the run.
    """
    family = build_family(run_config.task, kept)
    before, now = ((memory or {}).get("fingerprint") for memory in (kept, family.kept))
    place = getattr(run_config.task.config, "folder", None) or f"task {run_config.task.label}"
    fingerprints.refuse_other(before, now, str(place))
    data = put_data(family.data, device)
    selection = select_evaluated(run_config.task, run_config.evaluation)
    recipe = make_recipe(selection)
    recipe |= (family.kept or {}).get("options", {})
    if selection == run_config.task:
        return Tasks(family, family, data, recipe)
    evaluated = build_evaluated(run_config.task, selection, family.kept)
    return Tasks(family, evaluated._replace(data={}), data, recipe)


def build_evaluated(trained: Selection, evaluated: Selection, kept: Kept) -> base.TaskFamily:
    """Build the family as it is evaluated. Its data are those of the training, and are not read again if they suffice.

    Other ways, shots or queries are checked against the data; options that count in training alone are not.
    """
    outline = getattr(plugins.load("task", evaluated.name), "outline", None)
    training_only = getattr(trained.config, "training_only", {})
    is_checked = evaluated.config == dataclasses.replace(trained.config, **training_only)
    if outline is not None and kept is not None and is_checked:
        return make_family(outline, evaluated, kept)
    return build_family(evaluated, kept)


def put_data(data: Mapping[str, PyTree], device: jax.Device) -> dict[str, PyTree]:
    """Put the data of all splits on the device. An array that several splits share is there once."""
    put: dict[int, Any] = {}

    def place(leaf: Any) -> Any:
        if id(leaf) not in put:
            put[id(leaf)] = jax.device_put(leaf, device)
        return put[id(leaf)]

    return {split: jax.tree.map(place, arrays) for split, arrays in data.items()}


def settle_task(run_config: config.RunConfig) -> config.RunConfig:
    """Return the config of a new run with what its task chooses by its data, by the function `settle` of its plug-in.

    Raises:
      ConfigError, DataError, StorageError: as the plug-in raises.
    """
    name = run_config.task.name
    settle = getattr(plugins.load("task", name), "settle", None)
    if settle is None:
        return run_config
    with config_errors("task"):
        chosen = settle(plugins.make_config("task", name, run_config.task.config))
    twin = run_config.task.config
    values = {key: getattr(chosen, key) for key in getattr(twin, "settled_options", ())}
    return dataclasses.replace(run_config, task=Selection(name, dataclasses.replace(twin, **values)))


def describe_splits(run_config: config.RunConfig, family: base.TaskFamily) -> list[str]:
    """Return what the task says of its splits, such as their classes and pictures, and what it chose by its data."""
    pictures: Mapping[str, list[int]] = (family.kept or {}).get("pictures", {})
    lines = [
        f"{split}: {len(counts)} classes, {sum(counts):,} pictures" for split, counts in pictures.items()
    ]
    if network := (family.kept or {}).get("network"):
        lines.append(f"features: {network['features']} of {network['label']}")
    lines += (family.kept or {}).get("says", [])
    options = run_config.task.config
    chosen = [f"{name} {getattr(options, name)}" for name in getattr(options, "settled_options", ())]
    return [*lines, f"episodes: {', '.join(chosen)}"] if lines and chosen else lines


def make_recipe(selection: Selection) -> dict[str, Any]:
    """Return what the frozen episodes of a task depend on beside their keys; a part of their hash.

    That is the plug-in and its options. A config with `names_episodes_by_content` has `episode_options` instead, the
    ones that choose examples, whatever the plug-in makes of them; what the task keeps adds the content.
    """
    changed = list_changed_options(selection.config)
    if getattr(selection.config, "names_episodes_by_content", False):
        return {name: changed[name] for name in selection.config.episode_options if name in changed}
    return {"task": plugins.identify("task", selection.name), **changed}


def outline_tasks(run_config: config.RunConfig, kept: Kept = None) -> Tasks:
    """Build the task family without its files where it can: the data are shapes then.

    A plug-in's `outline(config)` returns what `build` returns, with `jax.ShapeDtypeStruct` in place of the arrays of
    `data`. Without it, the family is built.

    Args:
      kept: of the run; with it, a family may have an outline that otherwise needs its files.
    """
    selection = run_config.task
    module = plugins.load("task", selection.name)
    family = make_family(getattr(module, "outline", module.build), selection, kept)
    return Tasks(family, family, dict(family.data), {})


def build_family(selection: Selection, kept: Kept = None) -> base.TaskFamily:
    """Build the task family that a config selects.

    Args:
      kept: of the run that it was built for before; None: it is new.

    Raises:
      ConfigError: the family refuses its options.
    """
    return make_family(plugins.load("task", selection.name).build, selection, kept)


def make_family(make: Callable[..., base.TaskFamily], selection: Selection, kept: Kept) -> base.TaskFamily:
    """Call `build` or `outline` of a plug-in, with what the run has kept if it takes that."""
    settings = plugins.make_config("task", selection.name, selection.config)
    takes_kept = kept is not None and "kept" in inspect.signature(make).parameters
    with config_errors("task"):
        return make(settings, kept) if takes_kept else make(settings)


def select_evaluated(selection: Selection, evaluation: config.Evaluation) -> Selection:
    """Return the task with the ways, shots and queries of the evaluation, where it sets its own.

    Raises:
      ConfigError: the family has no such option, or refuses the value.
    """
    names = ("ways", "shots", "queries")
    changes = {name: getattr(evaluation, name) for name in names if getattr(evaluation, name) is not None}
    for name in changes:
        if not has_option(selection, name):
            raise errors.ConfigError(
                f"the task {selection.label} has no {name}",
                f"evaluation.{name}",
                f"leave evaluation.{name} out",
            )
    with config_errors("evaluation"):
        changes |= getattr(selection.config, "training_only", {})
        return Selection(selection.name, dataclasses.replace(selection.config, **changes))


def list_changed_options(options: Any) -> dict[str, Any]:
    """Return the options that are not at their default: a new option must not give old episodes a new hash.

    A config whose defaults have changed says the ones that were: `former_defaults`, {option: value}.
    """
    usual = {field.name: field.default for field in dataclasses.fields(options)}
    usual |= getattr(options, "former_defaults", {})
    return {
        name: getattr(options, name)
        for name, default in usual.items()
        if default is dataclasses.MISSING or getattr(options, name) != default
    }


def has_option(selection: Selection, name: str) -> bool:
    """Return whether the selected plug-in has an option of this name, which its other options do not replace."""
    replaced = getattr(selection.config, "replaced_options", {})
    return name not in replaced and any(field.name == name for field in dataclasses.fields(selection.config))
