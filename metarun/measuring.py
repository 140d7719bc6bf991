"""Which variants of a stage are measured, on which episodes, and how the result is laid out.

A variant is a mode of normalisation and a number of inner steps: "inductive/adapted", "inductive/unadapted",
"transductive/5". All variants of a stage are measured in one program, on the same episodes.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from metarun import base, building, errors, evaluation, population
from metarun.base import PyTree
from metarun.config import RunConfig


class Judge(NamedTuple):
    """The task family as it is evaluated, with its data on the device."""

    family: base.TaskFamily
    data: dict[str, PyTree]  # {split: arrays}
    recipe: dict[str, Any]  # what the episodes depend on beside their keys; part of their hash


def make_judge(config: RunConfig, family: base.TaskFamily, data: dict[str, PyTree]) -> Judge:
    """The judge of a run, which shares the data of training: ways, shots and queries change no split."""
    selection = building.judged_selection(config.task, config.evaluation)
    recipe = {"task": selection.name, **chosen_options(selection.config)}
    if selection == config.task:
        return Judge(family, data, recipe)
    return Judge(building.task_family(selection)._replace(data={}), data, recipe)


def chosen_options(config: Any) -> dict[str, Any]:
    """The options of a task that are not at their default: a new option must not give old episodes a new hash."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING or getattr(config, field.name) != field.default
    }


def variants(
    config: RunConfig,
    index: int,
    family: base.TaskFamily,
    modes: tuple[str, ...],
    curve: tuple[int, ...] = (),
    objective: base.Objective | None = None,
) -> dict[str, base.Algorithm]:
    """{variant: algorithm} of one stage.

    Args:
      family: that of training, which gives the model its shape.
      objective: of the family as it is evaluated, perhaps in other ways; None: the objective of `family`.
    """
    selection = config.stages[index].algorithm
    steps: dict[str, int | None] = {"adapted": None}
    if building.has_inner_steps(selection):
        adapted = config.evaluation.adapted_steps
        steps = {"unadapted": 0, "adapted": adapted, **{str(count): count for count in curve}}
    elif (curve or config.evaluation.adapted_steps) and not any(
        building.has_inner_steps(stage.algorithm) for stage in config.stages
    ):
        key = "inner_steps" if curve else "adapted_steps"
        raise errors.ConfigError(
            f"{selection.name} has no inner steps", f"evaluation.{key}", f"leave evaluation.{key} out"
        )
    return {
        f"{mode}/{name}": building.algorithm(config, index, family, mode, count, objective)
        for mode in modes
        for name, count in steps.items()
    }


def check_stage(
    config: RunConfig, index: int, judge: Judge, family: base.TaskFamily, weights: base.Weights
) -> None:
    """Refuse a stage that could not be evaluated. Computes nothing.

    Args:
      weights: shapes, of all learners of the stage.
    """
    modes = config.evaluation.modes[:1]
    chosen = variants(config, index, family, modes, objective=judge.family.objective)
    of_one = population.take(weights, population.positions(config, index)[0])
    check_ways(judge, family, next(iter(chosen.values())), of_one)


def check_split(judge: Judge, split: str) -> None:
    """Refuse a split that the task family does not have."""
    if split not in judge.data:
        raise errors.ConfigError(
            f"the task family has no {split} split", "evaluation.split", f"use one of {', '.join(judge.data)}"
        )


def check_ways(
    judge: Judge, family: base.TaskFamily, algorithm: base.Algorithm, weights: base.Weights
) -> None:
    """Refuse an evaluation in other ways than the learner has outputs. Computes nothing.

    Args:
      family: that of training.
      algorithm: built for the judge's objective: one without an output a way follows its ways.
    """
    if judge.family.spec.output_size == family.spec.output_size:
        return
    split = next(iter(judge.data))
    key = jax.random.key(0)
    episode = jax.eval_shape(judge.family.sample, judge.data[split], key)

    def outputs(weights, episode):
        return algorithm.predict(algorithm.adapt(weights, episode.support), episode.query.inputs)

    shape = jax.eval_shape(outputs, weights, episode).shape
    if shape[-1] != judge.family.spec.output_size:
        raise errors.ConfigError(
            f"the learner has {shape[-1]} outputs and cannot tell {judge.family.spec.output_size} classes apart",
            "evaluation.ways",
            f"evaluate in {shape[-1]} ways, or train in {judge.family.spec.output_size}",
        )


def layout(
    values: evaluation.Values, names: tuple[str, ...] = (), groups: np.ndarray | None = None
) -> dict[str, Any]:
    """{mode: {"unadapted": ..., "adapted": ..., "inner_steps": {count: ...}, "groups": {name: {variant: ...}}}}.

    The innermost are means and intervals. A group is there if it has two episodes or more.

    Args:
      names: of the groups of tasks.
      groups: which of them each episode belongs to, [episode].
    """
    result: dict[str, Any] = {}
    for variant, columns in evaluation.summarise(values).items():
        mode, name = variant.split("/")
        place = result.setdefault(mode, {})
        (place.setdefault("inner_steps", {}) if name.isdecimal() else place)[name] = columns
    if groups is None:
        return result
    for index, name in enumerate(names):
        members = groups == index
        if members.sum() < 2:
            continue
        within = {
            variant: {m: column[..., members] for m, column in part.items()}
            for variant, part in values.items()
        }
        for mode, place in layout(within).items():
            place.pop("inner_steps", None)
            result[mode].setdefault("groups", {})[name] = place
    return result


def layout_members(
    values: evaluation.Values,
    best: np.ndarray | None,
    names: tuple[str, ...] = (),
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """The layout of the mean over the members, with those of {"members": [each], "best": {"member", ...}} beside it.

    Args:
      values: [member, episode] or [replica, member, episode].
      best: which member is the best, [] or [replica]; None: that is not known, and "best" is left out.
    """

    def of(part):
        chosen = {v: {name: part(column) for name, column in own.items()} for v, own in values.items()}
        return layout(chosen, names, groups)

    count = next(iter(next(iter(values.values())).values())).shape[-2]
    result = of(lambda column: column.mean(axis=-2, dtype=np.float64))
    result["members"] = [of(lambda column, m=member: column[..., m, :]) for member in range(count)]
    if best is not None:
        index = best[..., None, None]
        chosen = of(lambda column: np.take_along_axis(column, index, axis=-2).squeeze(-2))
        result["best"] = {"member": best.tolist(), **chosen}
    return result


def columns(values: evaluation.Values) -> dict[str, Any]:
    """{variant/metric: [episode]}, or [replica, member, episode]: one by one, for pairwise comparison."""
    return {f"{variant}/{name}": column for variant, part in values.items() for name, column in part.items()}
