"""The pictures that a run leaves: the curves of every stage, and one episode as the family draws it."""

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from metarun import base, config, numbers
from metarun.assembly import Tasks
from metarun.evaluation import episodes, variants
from metarun.figures import canvas, metric_curves
from metarun.runs import directory, metrics
from metarun.stages import Stage, Trained, take_learner

# The programs of a picture run once, on one task. So on a CPU they are not made fast: they compile in one second where
# they would take eight. Their numbers differ by rounding.
COMPILER = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def write(
    path: Path,
    stages: Iterable[Stage],
    trained: Mapping[str, Trained],
    tasks: Tasks,
    settings: config.Evaluation,
) -> None:
    """Write `<run>/pictures/<stage>-curves.png` and `<stage>-episode.png`, for replica 0 and member 0.

    Args:
      path: the run directory.
    """
    folder = path / "pictures"
    rows = metrics.read(path / directory.METRICS)
    selection = tasks.family.problem.objective.selection
    for stage in stages:
        own = select_rows(stage.name, rows)
        canvas.write_figure(
            folder / f"{stage.name}-curves.png",
            functools.partial(metric_curves.draw_curves, rows=own, selection=selection),
            size=metric_curves.measure_curves(own, selection),
        )
        weights = take_learner(trained[stage.name].weights, stage.positions[0])
        write_episode(folder / f"{stage.name}-episode.png", stage, weights, tasks, settings)


def select_rows(stage: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl about replica 0 and member 0 of a stage."""
    return [row for row in rows if row["stage"] == stage and row["replica"] == row.get("member", 0) == 0]


def write_episode(
    path: Path, stage: Stage, weights: base.Weights, tasks: Tasks, settings: config.Evaluation
) -> None:
    """Draw the first episode of the evaluated split, with the learner after different numbers of inner steps."""
    draw = tasks.evaluated.draw
    if draw is None:
        return
    episode, predictors = prepare_episode(stage, weights, tasks, settings)
    canvas.write_figure(path, lambda figure: draw(figure, episode, predictors))


def prepare_episode(
    stage: Stage, weights: base.Weights, tasks: Tasks, settings: config.Evaluation
) -> tuple[base.Episode, dict[int | None, Callable]]:
    """Return the first frozen episode as numpy arrays, and {inner steps: predict}, with few steps first.

    An algorithm without inner steps has one predictor, at None.
    """

    def choose(values: numbers.Numbers) -> dict[str, variants.Variant]:
        problem = tasks.evaluated.problem
        return variants.choose_variants(
            stage.take_numbers(values), problem, settings.modes[:1], settings.inner_steps
        )

    chosen = choose({})
    frozen = episodes.freeze(tasks, settings)

    def adapt(values: numbers.Numbers, weights: base.Weights, data: base.PyTree, keys):
        episode = frozen.family.sample(data, keys[0])
        return episode, variants.observe_variants(
            choose(values), weights, episode.support, lambda _, learner: learner
        )

    options = COMPILER if jax.default_backend() == "cpu" else None
    adapt_once = numbers.jit(adapt, stage.list_numbers(), options)
    episode, learners = jax.device_get(adapt_once(weights, frozen.data, frozen.keys))
    programs = {
        variant.algorithm: jax.jit(variant.algorithm.predict, compiler_options=options)
        for variant in chosen.values()
    }

    def make_predict(name: str) -> Callable:
        predict, learner = programs[chosen[name].algorithm], learners[name]
        return lambda inputs: jax.device_get(predict(learner, inputs))

    steps = variants.name_steps(stage, settings.inner_steps)
    named = {count: make_predict(f"{settings.modes[0]}/{name}") for name, count in steps.items()}
    return episode, dict(sorted(named.items()))
