"""Which pictures a run leaves: the curves of every stage, and one test episode as the family draws it."""

import functools
from pathlib import Path
from typing import Any

import jax

from metarun import base, evaluation, measuring
from metarun.assessment import Trained
from metarun.runs import metrics, pictures
from metarun.stages import Session


def write(session: Session, trained: dict[str, Trained]) -> None:
    """Write `<run>/pictures/<stage>-curves.png` and `<stage>-episode.png`."""
    folder = session.run.path / "pictures"
    rows = metrics.read(session.run.metrics.path)
    selection = session.problem.family.objective.selection
    for index, stage in enumerate(session.config.stages):
        pictures.write_figure(
            folder / f"{stage.name}-curves.png",
            functools.partial(pictures.draw_curves, rows=rows_of(stage.name, rows), selection=selection),
            size=(9.0, 3.8),
        )
        write_episode(session, index, trained[stage.name].weights, folder / f"{stage.name}-episode.png")


def rows_of(stage: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that are of a stage."""
    return [row for row in rows if row["stage"] == stage]


def write_episode(session: Session, index: int, weights: base.Weights, path: Path) -> None:
    """The first episode of the evaluated split, with the learner after different numbers of inner steps."""
    wanted, family = session.config.evaluation, session.problem.judge.family
    draw = family.draw
    if draw is None:
        return
    key = evaluation.episode_keys(wanted.seed, wanted.split, 1)[0]
    episode = jax.jit(family.sample)(session.problem.judge.data[wanted.split], key)
    predictors = make_predictors(session, index, weights, episode.support)
    pictures.write_figure(path, lambda figure: draw(figure, jax.device_get(episode), predictors))


def make_predictors(session: Session, index: int, weights: base.Weights, support: base.Examples) -> dict:
    """{inner steps: predict}; algorithms without inner steps have one predictor, at 0."""
    wanted = session.config.evaluation
    options = session.config.stages[index].algorithm.config
    chosen = measuring.variants(
        session.config, index, session.problem.family, wanted.modes[:1], wanted.inner_steps
    )
    predictors = {}
    for variant, algorithm in chosen.items():
        name = variant.split("/")[1]
        steps = {"unadapted": 0, "adapted": getattr(options, "inner_steps", 0)}.get(name)
        learner = jax.jit(algorithm.adapt)(weights, support)
        predict = jax.jit(algorithm.predict)
        predictors[int(name) if steps is None else steps] = lambda inputs, p=predict, state=learner: (
            jax.device_get(p(state, inputs))
        )
    return dict(sorted(predictors.items()))
