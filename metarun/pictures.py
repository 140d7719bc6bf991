"""Which pictures a run leaves: the curves of every stage, and one test episode as the family draws it."""

import jax

from metarun import base, evaluation, measuring
from metarun.runs import metrics, pictures


def write(session, trained: dict) -> None:
    """Write `<run>/pictures/<stage>-curves.png` and `<stage>-episode.png`."""
    folder = session.run.path / "pictures"
    rows = metrics.read(session.run.metrics.path)
    selection = session.family.objective.selection
    for index, stage in enumerate(session.config.stages):
        own = [row for row in rows if row["stage"] == stage.name]
        pictures.write_figure(
            folder / f"{stage.name}-curves.png",
            lambda figure, own=own: pictures.draw_curves(figure, own, selection),
            size=(9.0, 3.8),
        )
        if session.judge.family.draw is not None:
            write_episode(session, index, trained[stage.name].weights, folder / f"{stage.name}-episode.png")


def write_episode(session, index: int, weights: base.Weights, path) -> None:
    """The first episode of the evaluated split, with the learner after different numbers of inner steps."""
    wanted, family = session.config.evaluation, session.judge.family
    key = evaluation.episode_keys(wanted.seed, wanted.split, 1)[0]
    episode = jax.jit(family.sample)(session.judge.data[wanted.split], key)
    predictors = make_predictors(session, index, weights, episode.support)
    pictures.write_figure(path, lambda figure: family.draw(figure, jax.device_get(episode), predictors))


def make_predictors(session, index: int, weights: base.Weights, support: base.Examples) -> dict:
    """{inner steps: predict}; algorithms without inner steps have one predictor, at 0."""
    wanted = session.config.evaluation
    options = session.config.stages[index].algorithm.config
    chosen = measuring.variants(session.config, index, session.family, wanted.modes[:1], wanted.inner_steps)
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
