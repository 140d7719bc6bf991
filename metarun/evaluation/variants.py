"""The learners that are measured for one stage.

A variant is a mode of normalisation and a number of inner steps: "inductive/adapted", "inductive/unadapted",
"transductive/5". All variants of a stage are measured in one program, on the same episodes, and those that can share
one adaptation do.

"unadapted" is the learner that has not seen the support. Where the support decides where the inner steps begin, as with
a hypernetwork, that is no learner after 0 steps: it is the mean, number by number, of the learners after 0 steps of
MEAN_TASKS tasks of the training split, which a fixed key draws. What normalises the queries stays the task's own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from metarun import base, config, errors, trees
from metarun.assembly import Tasks
from metarun.base import PyTree
from metarun.stages import Stage, take_learner

REFERENCE = "reference"  # the name of a learner's leaves that normalise its queries
MEAN_TASKS, MEAN_SEED = 64, 0  # training tasks of the mean start, and the seed that draws them

Starts = Mapping[str, PyTree]  # {variant: the mean of its learners over training tasks}


class Variant(NamedTuple):
    """One measured learner."""

    algorithm: base.Algorithm  # whose `predict` answers
    # Whose `watch` gives the learner, the same object for all that share an adaptation; None: the variant's own
    # algorithm adapts, for it alone.
    watched: base.Algorithm | None = None
    steps: int | None = None  # inner steps, if the learner is watched
    is_mean: bool = False  # whether the learner is the mean over training tasks


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
        f"{mode}/{name}": choose_variant(stage, problem, mode, steps, name == "unadapted")
        for mode in modes
        for name, steps in name_steps(stage, curve).items()
    }


def name_steps(stage: Stage, curve: Iterable[int]) -> dict[str, int | None]:
    """Return {learner: inner steps} of the variants of each mode; None: the algorithm takes no inner steps."""
    if stage.adapted_steps is None:
        return {"adapted": None}
    return {"unadapted": 0, "adapted": stage.adapted_steps, **{str(steps): steps for steps in curve}}


def choose_variant(
    stage: Stage, problem: base.Problem, mode: str, steps: int | None, unadapted: bool = False
) -> Variant:
    """Return the variant of one mode after so many inner steps.

    Args:
      unadapted: whether the learner must not have seen the support.
    """
    algorithm = stage.build_algorithm(mode, stage.adapted_steps, problem)
    if unadapted and algorithm.writes_start:
        return Variant(stage.build_algorithm(mode, 0, problem), is_mean=True)
    if algorithm.watch is None or steps is None:
        return Variant(stage.build_algorithm(mode, steps, problem))
    # All modes have the same learners, and in this one the support passes through the network once a step: it is not
    # its own reference beside itself.
    return Variant(algorithm, stage.build_algorithm("transductive", stage.adapted_steps, problem), steps)


def describe_mean(stage: Stage, problem: base.Problem) -> dict[str, int] | None:
    """Return over what the unadapted learner of a stage is a mean; None: all tasks begin alike."""
    if stage.adapted_steps is None or not stage.build_algorithm(None, None, problem).writes_start:
        return None
    return {"training_tasks": MEAN_TASKS, "seed": MEAN_SEED}


def average_starts(
    variants: Mapping[str, Variant],
    family: base.TaskFamily,
    weights: base.Weights,
    training: PyTree,
    at_once: int,
) -> Starts:
    """Return the mean learners of the variants that have one.

    Args:
      training: data of the training split.
      at_once: tasks that are computed in parallel.
    """
    keys = jax.random.split(jax.random.key(MEAN_SEED), MEAN_TASKS)

    def average(algorithm: base.Algorithm) -> PyTree:
        def adapt(key):
            return algorithm.adapt(weights, family.sample(training, key).support)

        learners = jax.lax.map(adapt, keys, batch_size=min(at_once, MEAN_TASKS))
        return jax.tree.map(lambda leaf: leaf.mean(axis=0), learners)

    return {name: average(variant.algorithm) for name, variant in variants.items() if variant.is_mean}


def replace_start(learner: PyTree, mean: PyTree) -> PyTree:
    """Return the mean learner with what normalises the queries of this one."""

    def choose(path, own, shared):
        return own if REFERENCE in trees.path_names(path) else shared

    return jax.tree_util.tree_map_with_path(choose, learner, mean)


def observe_variants(
    variants: Mapping[str, Variant],
    weights: base.Weights,
    support: base.Examples,
    observe: Callable,
    starts: Starts = MappingProxyType({}),
) -> dict[str, PyTree]:
    """Return {variant: observe(algorithm, learner)} for one task. What is watched adapts once for all its points.

    Args:
      starts: as of `average_starts`; a mean learner that is missing there is the one that the support begins with.
    """
    observed: dict[str, PyTree] = {}
    for name, variant in variants.items():
        if variant.watched is None:
            learner = variant.algorithm.adapt(weights, support)
            learner = replace_start(learner, starts[name]) if name in starts else learner
            observed[name] = observe(variant.algorithm, learner)
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
