"""The pictures that a run leaves: the curves of every stage, and one episode as the family draws it."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from metarun import base, config
from metarun.assembly import Tasks
from metarun.evaluation import episodes, variants
from metarun.figures import canvas, metric_curves
from metarun.runs import directory, metrics
from metarun.stages import Stage, Trained, take_learner


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
    frozen = episodes.freeze(tasks, settings, count=1)
    episode = jax.jit(frozen.family.sample)(frozen.data, frozen.keys[0])
    predictors = make_predictors(stage, weights, tasks, settings, episode.support)
    canvas.write_figure(path, lambda figure: draw(figure, jax.device_get(episode), predictors))


def make_predictors(
    stage: Stage, weights: base.Weights, tasks: Tasks, settings: config.Evaluation, support: base.Examples
) -> dict:
    """Return {inner steps: predict}; an algorithm without inner steps has one predictor, at None."""
    chosen = variants.choose_variants(
        stage, tasks.evaluated.problem, settings.modes[:1], settings.inner_steps
    )
    names = {"unadapted": 0, "adapted": stage.adapted_steps}
    predictors = {}
    for variant, algorithm in chosen.items():
        name = variant.split("/")[1]
        steps = names[name] if name in names else int(name)
        learner = jax.jit(algorithm.adapt)(weights, support)
        predict = jax.jit(algorithm.predict)
        predictors[steps] = lambda inputs, p=predict, state=learner: jax.device_get(p(state, inputs))
    return dict(sorted(predictors.items()))
