"""The learners that are measured for one stage.

A variant is a mode of normalisation and a number of inner steps: "inductive/adapted", "inductive/unadapted",
"transductive/5". All variants of a stage are measured in one program, on the same episodes, and those that can share
one adaptation do.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from metarun import base, config, errors
from metarun.assembly import Tasks
from metarun.base import PyTree
from metarun.stages import Stage, take_learner


class Variant(NamedTuple):
    """One measured learner."""

    algorithm: base.Algorithm  # whose `predict` answers
    # Whose `watch` gives the learner, the same object for all that share an adaptation; None: the variant's own
    # algorithm adapts, for it alone.
    watched: base.Algorithm | None = None
    steps: int | None = None  # inner steps, if the learner is watched


def choose_variants(
    stage: Stage, problem: base.Problem, modes: Iterable[str], curve: Iterable[int] = ()
) -> dict[str, Variant]:
    """Return {variant: what is measured} for one stage, on the problem that is evaluated.

    Args:
      modes: the modes of normalisation.
      curve: numbers of inner steps beside 0 and those of the adapted learner. An algorithm without inner steps has
        the adapted learner alone.
    """
    return {
        f"{mode}/{name}": choose_variant(stage, problem, mode, steps)
        for mode in modes
        for name, steps in name_steps(stage, curve).items()
    }


def name_steps(stage: Stage, curve: Iterable[int]) -> dict[str, int | None]:
    """Return {learner: inner steps} of the variants of each mode; None: the algorithm takes no inner steps."""
    if stage.adapted_steps is None:
        return {"adapted": None}
    return {"unadapted": 0, "adapted": stage.adapted_steps, **{str(steps): steps for steps in curve}}


def choose_variant(stage: Stage, problem: base.Problem, mode: str, steps: int | None) -> Variant:
    """Return the variant of one mode after so many inner steps."""
    algorithm = stage.build_algorithm(mode, stage.adapted_steps, problem)
    if algorithm.watch is None or steps is None:
        return Variant(stage.build_algorithm(mode, steps, problem))
    # All modes have the same learners, and in this one the support passes through the network once a step: it is not
    # its own reference beside itself.
    return Variant(algorithm, stage.build_algorithm("transductive", stage.adapted_steps, problem), steps)


def observe_variants(
    variants: Mapping[str, Variant], weights: base.Weights, support: base.Examples, observe: Callable
) -> dict[str, PyTree]:
    """Return {variant: observe(algorithm, learner)} for one task. What is watched adapts once for all its points."""
    observed: dict[str, PyTree] = {}
    for name, variant in variants.items():
        if variant.watched is None:
            observed[name] = observe(variant.algorithm, variant.algorithm.adapt(weights, support))
    for watched in dict.fromkeys(variant.watched for variant in variants.values() if variant.watched):
        sharing = {name: variant for name, variant in variants.items() if variant.watched is watched}
        observed |= observe_watched(watched, sharing, weights, support, observe)
    return observed


def observe_watched(
    watched: Any,
    variants: Mapping[str, Variant],
    weights: base.Weights,
    support: base.Examples,
    observe: Callable,
) -> dict[str, PyTree]:
    """Return {variant: observe(algorithm, learner)} of variants whose learners one adaptation gives.

    Args:
      watched: the algorithm that adapts. Each answering algorithm is observed with its learner at every point.
    """
    counts = tuple(sorted({variant.steps or 0 for variant in variants.values()}))
    answering = list(dict.fromkeys(variant.algorithm for variant in variants.values()))

    def observe_point(learner: PyTree) -> list[PyTree]:
        return [observe(algorithm, learner) for algorithm in answering]

    notes = watched.watch(weights, support, base.Points(counts, observe_point))

    def select(variant: Variant) -> PyTree:
        place = counts.index(variant.steps or 0)
        return jax.tree.map(lambda leaf: leaf[place], notes[answering.index(variant.algorithm)])

    return {name: select(variant) for name, variant in variants.items()}


def refuse_steps_without_loop(stages: Sequence[Stage], evaluation: config.Evaluation) -> None:
    """Refuse an evaluation that asks for inner steps if no stage of the run takes any.

    Raises:
      ConfigError: names the first algorithm and the option.
    """
    names = [stage.settings.algorithm.label for stage in stages if stage.adapted_steps is None]
    if (evaluation.inner_steps or evaluation.adapted_steps) and len(names) == len(stages):
        key = "inner_steps" if evaluation.inner_steps else "adapted_steps"
        raise errors.ConfigError(
            f"{names[0]} has no inner steps", f"evaluation.{key}", f"leave evaluation.{key} out"
        )


def check_ways(stage: Stage, tasks: Tasks, mode: str, weights: base.Weights) -> None:
    """Refuse an evaluation in other ways than the learner has outputs. Computes nothing.

    Args:
      weights: of all learners of the stage, or their shapes.

    Raises:
      ConfigError: says how many classes the learner can tell apart.
    """
    family, ways = tasks.evaluated, tasks.evaluated.problem.spec.output_size
    if ways == tasks.family.problem.spec.output_size:
        return
    algorithm = stage.build_algorithm(mode, stage.adapted_steps, family.problem)
    shapes = jax.eval_shape(lambda: take_learner(weights, stage.positions[0]))
    data = next(iter(tasks.data.values()))
    episode = jax.eval_shape(family.sample, data, jax.random.key(0))

    def answer(weights, episode):
        return algorithm.predict(algorithm.adapt(weights, episode.support), episode.query.inputs)

    outputs = jax.eval_shape(answer, shapes, episode).shape[-1]
    if outputs != ways:
        raise errors.ConfigError(
            f"the learner has {outputs} outputs and cannot tell {ways} classes apart",
            "evaluation.ways",
            f"evaluate in {outputs} ways, or train in {ways}",
        )
