"""The learners that are measured for one stage.

A variant is a mode of normalisation and a number of inner steps: "inductive/adapted", "inductive/unadapted",
"transductive/5". All variants of a stage are measured in one program, on the same episodes.
"""

from collections.abc import Iterable, Sequence

import jax

from metarun import base, config, errors
from metarun.assembly import Tasks
from metarun.stages import Stage, take_learner


def choose_variants(
    stage: Stage, problem: base.Problem, modes: Iterable[str], curve: Iterable[int] = ()
) -> dict[str, base.Algorithm]:
    """Return {variant: algorithm} for one stage, on the problem that is evaluated.

    Args:
      modes: the modes of normalisation.
      curve: numbers of inner steps beside 0 and those of the adapted learner. An algorithm without inner steps has
        the adapted learner alone.
    """
    steps: dict[str, int | None] = {"adapted": None}
    if stage.adapted_steps is not None:
        steps = {"unadapted": 0, "adapted": stage.adapted_steps, **{str(count): count for count in curve}}
    return {
        f"{mode}/{name}": stage.build_algorithm(mode, count, problem)
        for mode in modes
        for name, count in steps.items()
    }


def refuse_steps_without_loop(stages: Sequence[Stage], evaluation: config.Evaluation) -> None:
    """Refuse an evaluation that asks for inner steps if no stage of the run takes any.

    Raises:
      ConfigError: names the first algorithm and the option.
    """
    names = [stage.settings.algorithm.name for stage in stages if stage.adapted_steps is None]
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
    algorithm = next(iter(choose_variants(stage, family.problem, [mode]).values()))
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
