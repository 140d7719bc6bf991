"""From a configuration to the things it names: task families, models, and the algorithms of every stage.

The mode of normalisation is decided here, around the model, so that no algorithm needs to know of it:
an algorithm always passes the support as `reference`, and a transductive model does not look at it.
"""

import dataclasses
from contextlib import contextmanager
from typing import Any

from metarun import base, errors, plugins
from metarun.config import Evaluation, RunConfig, Selection


@contextmanager
def refusals(section: str):
    """Turn the ValueError of a plug-in that cannot be built as configured into a ConfigError."""
    try:
        yield
    except ValueError as error:
        what, *remedy = map(str, error.args)
        raise errors.ConfigError(what, section, *(remedy or [f"change {section} in the config"])) from error


def task_family(selection: Selection) -> base.TaskFamily:
    """The family as in training."""
    config = plugins.real_config("task", selection.name, selection.config)
    with refusals("task"):
        return plugins.load("task", selection.name).build(config)


def task_outline(selection: Selection) -> base.TaskFamily:
    """The family as in training, without its files where it can: `outline(config)` of a plug-in is what `build`
    returns with `jax.ShapeDtypeStruct` for the arrays of `data`. Without it, the family is built.
    """
    module = plugins.load("task", selection.name)
    if not hasattr(module, "outline"):
        return task_family(selection)
    with refusals("task"):
        outline: base.TaskFamily = module.outline(
            plugins.real_config("task", selection.name, selection.config)
        )
    return outline


def judged_selection(selection: Selection, evaluation: Evaluation) -> Selection:
    """The task as in evaluation: its ways, shots and queries, where the evaluation sets its own.

    Raises:
      ConfigError: the family has no such option, or refuses the value.
    """
    options = ("ways", "shots", "queries")
    given = {name: getattr(evaluation, name) for name in options if getattr(evaluation, name) is not None}
    known = {field.name for field in dataclasses.fields(selection.config)}
    for name in given.keys() - known:
        raise errors.ConfigError(
            f"the task {selection.name} has no {name}", f"evaluation.{name}", f"leave evaluation.{name} out"
        )
    with refusals("evaluation"):
        return Selection(selection.name, dataclasses.replace(selection.config, **given))


def has_inner_steps(selection: Selection) -> bool:
    """Whether an algorithm adapts in countable steps, so that "before adaptation" means something."""
    return any(field.name == "inner_steps" for field in dataclasses.fields(selection.config))


def adapted_steps(config: RunConfig, index: int) -> int | None:
    """Inner steps of the adapted learner of stage `index`; None of an algorithm without inner steps."""
    selection = config.stages[index].algorithm
    if not has_inner_steps(selection):
        return None
    options: Any = selection.config
    return config.evaluation.adapted_steps or options.inner_steps


def algorithm(
    config: RunConfig,
    index: int,
    family: base.TaskFamily,
    mode: str | None = None,
    inner_steps: int | None = None,
    objective: base.Objective | None = None,
) -> base.Algorithm:
    """The algorithm of stage `index`, on top of those of the stages before it.

    Args:
      mode: what normalises the queries, here and in the earlier stages; None: as each stage trains.
      inner_steps: of this stage's inner loop; None: as configured.
      objective: of the family as it is evaluated, perhaps in other ways than `family`, that of training, which
        gives the models their shape; None: the objective of `family`.
    """
    objective = objective or family.objective
    built: dict[str, base.Algorithm] = {}
    for position, stage in enumerate(config.stages[: index + 1]):  # each once, on all before it
        selection = stage.algorithm
        if position == index and inner_steps is not None:
            changed = dataclasses.replace(selection.config, inner_steps=inner_steps)
            selection = Selection(selection.name, changed)
        options = plugins.real_config("algorithm", selection.name, selection.config)
        with refusals(f"algorithm of stage {stage.name}"):
            network = model(stage.model, family.spec, mode or stage.training.mode)
            module = plugins.load("algorithm", selection.name)
            built[stage.name] = module.build(options, network, objective, dict(built))
    return built[config.stages[index].name]


def model(selection: Selection, spec: base.Spec, mode: str) -> base.Model:
    """The model, which in transductive mode lets every batch normalise itself."""
    config: Any = plugins.real_config("model", selection.name, selection.config)
    built: base.Model = plugins.load("model", selection.name).build(config, spec)
    if mode == "inductive":
        return built

    def without_reference(function):
        return lambda params, inputs, *, condition=None, reference=None: function(
            params, inputs, condition=condition
        )

    return built._replace(apply=without_reference(built.apply), embed=without_reference(built.embed))
