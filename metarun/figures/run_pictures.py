"""The pictures that a run leaves: the curves of every stage, and one episode as the family draws it."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from metarun import base, config, numbers
from metarun.assembly import Tasks
from metarun.evaluation import episodes, variants
from metarun.figures import canvas, metric_curves
from metarun.runs import directory, metrics
from metarun.runs.metric_rows import Rows, make_rows
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
    """Write `<run>/pictures/<stage>-curves.png`, of all learners, and `<stage>-episode.png`, of the first one.

    A stage of one step has no curves, and no picture of them.

    Args:
      path: the run directory.
    """
    folder = path / "pictures"
    rows = metrics.read(path / directory.METRICS)
    selection = tasks.family.problem.objective.selection
    task = read_task(path)
    for stage in stages:
        own, title = select_rows(stage.name, rows), make_title(path, task, stage)
        if metric_curves.is_worth_drawing(own, selection):
            canvas.write_figure(
                folder / f"{stage.name}-curves.png",
                functools.partial(metric_curves.draw_curves, rows=own, selection=selection, title=title),
                size=metric_curves.measure_curves(own, selection),
                root=path,
            )
        weights = take_learner(trained[stage.name].weights, stage.positions[0])
        write_episode(folder / f"{stage.name}-episode.png", stage, weights, tasks, settings, title)


def select_rows(stage: str, rows: Sequence[Mapping[str, Any]]) -> Rows:
    """Return the lines of metrics.jsonl about the learners of a stage, without those about its speed."""
    return make_rows(rows).where(stage=stage).without(split=metrics.SPEED)


def read_task(path: Path) -> str:
    """Return the name of the task family of a run; "" if there is no config, as in a test or a benchmark."""
    file = path / directory.CONFIG
    return config.load(file).task.name if file.is_file() else ""


def make_title(path: Path, task: str, stage: Stage) -> str:
    """Return two lines: the config and the run, then what the stage is made of."""
    run = path.absolute()
    model, algorithm = stage.settings.model.name, stage.settings.algorithm.name
    names = {"replica": "trials" if stage.has_trials else "replicas", "member": "members"}
    parts = [f"stage {stage.name}", task, model, algorithm, "" if stage.has_trials else f"seed {stage.seed}"]
    parts += [f"{size} {names[axis]}" for axis, size in stage.axes.items()]
    return f"{run.parent.name}/{run.name}\n" + " · ".join(filter(None, parts))


def write_episode(
    path: Path,
    stage: Stage,
    weights: base.Weights,
    tasks: Tasks,
    settings: config.Evaluation,
    title: str = "",
) -> None:
    """Draw the first episode of the evaluated split, with the learner after different numbers of inner steps."""
    draw = tasks.evaluated.draw
    if draw is None:
        return
    episode, predictors = prepare_episode(stage, weights, tasks, settings)

    def draw_titled(figure) -> None:
        draw(figure, episode, predictors)
        own = figure.get_suptitle()  # that of the family
        figure.suptitle("\n".join(filter(None, [title, own])), fontsize="medium", wrap=True)

    canvas.write_figure(path, draw_titled, root=path.parents[1])


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

    chosen, stream = choose({}), tasks.evaluated.problem.stream
    frozen = episodes.freeze(tasks, settings)

    def adapt(values: numbers.Numbers, weights: base.Weights, data: base.PyTree, keys):
        episode = frozen.family.sample(data, keys[0])

        def observe(algorithm: base.Algorithm, learner: base.PyTree) -> base.PyTree:
            follow = algorithm.follow if stream else None
            return follow(weights, episode.query) if follow else learner

        return episode, variants.observe_variants(choose(values), weights, episode.support, observe)

    options = COMPILER if jax.default_backend() == "cpu" else None
    adapt_once = numbers.jit(adapt, stage.list_numbers(), options)
    episode, learners = jax.device_get(adapt_once(weights, frozen.data, frozen.keys))
    programs = {
        variant.algorithm: jax.jit(variant.algorithm.predict, compiler_options=options)
        for variant in chosen.values()
    }

    def make_predict(name: str) -> Callable:
        predict, learner = programs[chosen[name].algorithm], learners[name]
        if stream:
            return lambda inputs: learner  # its answers along the stream
        return lambda inputs: jax.device_get(predict(learner, inputs))

    steps = variants.name_steps(stage, settings.inner_steps)
    named = {count: make_predict(f"{settings.modes[0]}/{name}") for name, count in steps.items()}
    return episode, dict(sorted(named.items()))
