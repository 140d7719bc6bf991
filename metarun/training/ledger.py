"""What each stage of a run has cost, `costs` in result.json: with it, methods are compared at equal budgets.

For each stage {"replicas", "members",
 "own": {"steps", "ended_by", "seconds", "step_flops", "flops", "parameters", "frozen", "tasks", "examples"},
 "total": {"steps", "seconds", "flops", "parameters", "tasks", "examples"}, "stands_on": [stage],
 "adaptation": {"flops", "bytes"}, "prediction": {"flops"}}

- The numbers are those of ONE replica with all its members; only `seconds` are those of all replicas side by side.
- FLOPs are what matrix products and convolutions multiply and add (`operations`), sampling and the outer step included.
  "at_least": true beside them says that a loop of unknown length was counted once, so that they are a lower bound.
- `parameters` are the numbers that training changes, `frozen` those that it does not: weights of earlier stages, and
  what was fitted in closed form.
- `total` adds the stages that this one stands on: those whose weights its start reads, and what they stand on. It is
  found in the traced start, so that no option has to be known. Their frozen weights are counted once, where they were
  trained.
  A stage that starts from the weights of another run (`init_from`) carries the cost of the stage there and of what
  that stands on, too, also where it was taken from the run that has started it so (`taken_from`). Each stage of each
  run counts once, however many stages have its weights (`start_costs`).
- One adaptation is that of one learner to the support of one episode, as it is evaluated, in the first mode; `bytes` is
  the memory of what it gives. One prediction is the answer to one example, an equal share of the queries' cost.

A number that is not known is null: the stage was trained by an older version of metarun.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.interpreters import partial_eval

from metarun import base, trees
from metarun.assembly import Tasks
from metarun.base import PyTree
from metarun.stages import Stage, Trained, take_learner
from metarun.training import operations, start_costs
from metarun.training.facts import Spent
from metarun.training.start_costs import ADDED, Inherited

logger = logging.getLogger("metarun")


class Setting(NamedTuple):
    """What all stages are counted on."""

    tasks: Tasks
    mode: str  # of normalisation, in which an adaptation is counted
    seen: base.Episode  # the shapes of an episode of training
    evaluated: base.Episode  # the shapes of an episode of the evaluation


def list_costs(
    stages: Sequence[Stage],
    trained: Mapping[str, Trained],
    spent: Mapping[str, Spent],
    tasks: Tasks,
    mode: str,
    inherited: Mapping[str, Inherited] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the cost of each stage, by its name. Computes nothing: programs are traced, and their operations counted.

    A stage whose cost cannot be counted is left out with a warning: that must not cost a long training its result.

    Args:
      mode: of normalisation, in which an adaptation is counted.
      inherited: what the stages have from other runs, by name; see `start_costs.read_inherited`.
    """
    shapes = {
        name: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), outcome.weights)
        for name, outcome in trained.items()
    }
    evaluated = shape_episode(tasks.evaluated, tasks)
    seen = evaluated if tasks.evaluated is tasks.family else shape_episode(tasks.family, tasks)
    setting = Setting(tasks, mode, seen, evaluated)
    costs: dict[str, dict[str, Any]] = {}
    for stage in stages:
        if stage.name not in shapes:
            continue
        own = spent.get(stage.name)
        try:
            costs[stage.name] = describe_stage(stage, shapes, own, setting, costs, inherited or {})
        except Exception as error:
            logger.warning("the cost of %s is not counted: %s: %s", stage.name, type(error).__name__, error)
            logger.debug("no cost", exc_info=True)
    return costs


def shape_episode(family: base.TaskFamily, tasks: Tasks) -> base.Episode:
    """Return the shapes of an episode of a family, which are the same for every split."""
    data = jax.eval_shape(lambda: next(iter(tasks.data.values())))
    episode: base.Episode = jax.eval_shape(family.sample, data, jax.random.key(0))
    return episode


def describe_stage(
    stage: Stage,
    shapes: Mapping[str, base.Weights],
    spent: Spent | None,
    setting: Setting,
    earlier: Mapping[str, dict[str, Any]],
    inherited: Mapping[str, Inherited],
) -> dict[str, Any]:
    """Return the cost of one stage.

    Args:
      shapes: of the weights of each stage, with its leading axes.
      earlier: the costs of the stages before it.
      inherited: as of `list_costs`.
    """
    weights = shapes[stage.name]
    own = describe_own(stage, weights, spent, setting.seen)
    stands_on = list_foundations(stage, shapes, setting.tasks, earlier)
    owns = {stage.name: own, **{name: earlier.get(name, {}).get("own", {}) for name in stands_on}}
    sections = start_costs.collect(owns, inherited)
    total = {name: add([section.get(name) for section in sections]) for name in ADDED}
    if any(section.get("at_least") for section in sections):
        total["at_least"] = True
    return {
        "replicas": stage.axes.get("replica", 1),
        "members": stage.axes.get("member", 1),
        "own": own,
        "total": total,
        "stands_on": stands_on,
        **count_use(stage, weights, setting),
    }


def describe_own(
    stage: Stage, weights: base.Weights, spent: Spent | None, episode: base.Episode
) -> dict[str, Any]:
    """Return what the training of one stage has cost.

    Args:
      weights: their shapes, with the leading axes of the stage.
      episode: the shapes of one that it was trained on.
    """
    replicas, members = (stage.axes.get(axis, 1) for axis in ("replica", "member"))
    steps, step_flops = (spent.steps, spent.step_flops) if spent else (None, None)
    seen = None if steps is None else steps * stage.training.tasks_per_step * members
    own = {
        "steps": steps,
        "ended_by": spent.ended_by if spent else None,
        "seconds": spent.seconds if spent else None,
        "step_flops": step_flops,
        "flops": None if steps is None or step_flops is None else steps * step_flops,
        "parameters": trees.size(weights.trained) // replicas,
        "frozen": trees.size(weights.frozen) // replicas,
        "tasks": seen,
        "examples": None if seen is None else seen * count_examples(episode),
    }
    return own | ({"at_least": True} if spent and spent.flops_at_least else {})


def add(values: Sequence[float | None]) -> float | None:
    """Return the sum; None if one of the values is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def count_examples(episode: base.Episode) -> int:
    """Return how many examples an episode has, support and query together."""
    return count_rows(episode.support.targets) + count_rows(episode.query.targets)


def count_rows(tree: PyTree) -> int:
    """Return the length of the first axis, which all leaves share."""
    return int(jax.tree.leaves(tree)[0].shape[0])


def list_foundations(
    stage: Stage,
    shapes: Mapping[str, base.Weights],
    tasks: Tasks,
    earlier: Mapping[str, dict[str, Any]],
) -> list[str]:
    """Return the earlier stages that a stage stands on, in their order.

    They are those whose weights its start reads, and those that these stand on.
    """
    known = {before.name: shapes[before.name] for before in stage.earlier if before.name in shapes}
    read = find_read_stages(stage, known, tasks) if known else set()
    for name in list(read):
        read |= set(earlier.get(name, {}).get("stands_on", ()))
    return [name for name in known if name in read]


def find_read_stages(stage: Stage, earlier: dict[str, base.Weights], tasks: Tasks) -> set[str]:
    """Return the stages whose weights a stage's start depends on, from its trace.

    Args:
      earlier: the shapes of the weights of the stages before it.
    """
    data, keys = jax.eval_shape(lambda: (tasks.data["train"], stage.make_keys()))
    start = jax.make_jaxpr(stage.make_start(tasks.family.sample))(data, keys, earlier)
    _, used = partial_eval.dce_jaxpr(start.jaxpr, [True] * len(start.jaxpr.outvars))
    # jax sorts the keys of a dict, and the earlier weights are the last argument.
    names = [name for name in sorted(earlier) for _ in jax.tree.leaves(earlier[name])]
    return {name for name, is_used in zip(names, used[len(used) - len(names) :], strict=True) if is_used}


def count_use(stage: Stage, weights: base.Weights, setting: Setting) -> dict[str, dict[str, Any]]:
    """Return {"adaptation": {"flops", "bytes"}, "prediction": {"flops"}} of one learner of a stage.

    Args:
      weights: their shapes, with the leading axes of the stage.
    """
    problem, episode = setting.tasks.evaluated.problem, setting.evaluated
    algorithm = stage.build_algorithm(setting.mode, stage.adapted_steps, problem)
    learner_weights = take_learner(weights, stage.positions[0])
    adapt, learner = jax.make_jaxpr(algorithm.adapt, return_shape=True)(learner_weights, episode.support)
    predict = jax.make_jaxpr(algorithm.predict)(learner, episode.query.inputs)
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(learner))
    return {
        "adaptation": describe_flops(adapt, 1) | {"bytes": size},
        "prediction": describe_flops(predict, count_rows(episode.query.targets)),
    }


def describe_flops(traced: Any, share: int) -> dict[str, Any]:
    """Return {"flops"}: a share of those of a traced program, with "at_least" if they are a lower bound."""
    at_least = {"at_least": True} if operations.count_open_loops(traced.jaxpr) else {}
    return {"flops": operations.count_flops(traced.jaxpr) / share} | at_least
