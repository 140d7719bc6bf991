"""From a config to its task family and its built stages, once for each run.

Once they are built, what lies above works on `Tasks` and `Stage`, and looks up no stage in a config.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from metarun import base, config, errors, numbers, outside, plugins
from metarun.base import PyTree
from metarun.config import Selection
from metarun.config.trials import name_number
from metarun.numbers import Numbers
from metarun.outside import Code
from metarun.stages import Stage, config_errors


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


def build_tasks(run_config: config.RunConfig, device: jax.Device) -> Tasks:
    """Build the task family and put its data on the device, once for training and evaluation."""
    family = build_family(run_config.task)
    data = {split: jax.device_put(arrays, device) for split, arrays in family.data.items()}
    selection = select_evaluated(run_config.task, run_config.evaluation)
    recipe = {"task": plugins.identify("task", selection.name), **list_changed_options(selection.config)}
    same = selection == run_config.task
    return Tasks(family, family if same else build_family(selection)._replace(data={}), data, recipe)


def outline_tasks(run_config: config.RunConfig) -> Tasks:
    """Build the task family without its files where it can: the data are shapes then.

    A plug-in's `outline(config)` returns what `build` returns, with `jax.ShapeDtypeStruct` in place of the arrays of
    `data`. Without it, the family is built.
    """
    selection = run_config.task
    module = plugins.load("task", selection.name)
    make = getattr(module, "outline", module.build)
    with config_errors("task"):
        family = make(plugins.make_config("task", selection.name, selection.config))
    return Tasks(family, family, dict(family.data), {})


def build_family(selection: Selection) -> base.TaskFamily:
    """Build the task family that a config selects.

    Raises:
      ConfigError: the family refuses its options.
    """
    with config_errors("task"):
        family: base.TaskFamily = plugins.load("task", selection.name).build(
            plugins.make_config("task", selection.name, selection.config)
        )
    return family


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
        return Selection(selection.name, dataclasses.replace(selection.config, **changes))


def list_changed_options(options: Any) -> dict[str, Any]:
    """Return the options that are not at their default: a new option must not give old episodes a new hash."""
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.default is dataclasses.MISSING or getattr(options, field.name) != field.default
    }


def has_option(selection: Selection, name: str) -> bool:
    """Return whether the selected plug-in has an option of this name, which its other options do not replace."""
    replaced = getattr(selection.config, "replaced_options", ())
    return name not in replaced and any(field.name == name for field in dataclasses.fields(selection.config))
