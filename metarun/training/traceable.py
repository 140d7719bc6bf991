"""Which numbers of a config can differ between the trials of one program: found by tracing, never by a list.

A number can if the start, a step and the measurement of every stage that has it are traced with an array of values in
its place. Nothing is compiled and nothing is computed; the files of the data set are not read where the task family
has an outline.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarun import assembly, base, config, errors, hardware, meshes, numbers
from metarun.assembly import Tasks
from metarun.config.trials import name_number
from metarun.evaluation import variants
from metarun.numbers import Numbers
from metarun.stages import Stage
from metarun.training import loop, optimizer
from metarun.training.first_memory import make_memory
from metarun.training.loop import Loop, State

VALUES = 2  # of each number while it is traced
# What ends the training: the one number that the host knows, too.
BUDGETS = ("training.steps", "training.seconds", "training.flops")


def list_traceable(run_config: config.RunConfig) -> set[str]:
    """Return the keys of all numbers that can differ between the trials of one program.

    A key is as an override writes it: `algorithm.inner_lr`, or `stages.NAME.algorithm.inner_lr` if there are several
    stages. Numbers are tried at the values of trial 0, because a zero stays a constant.

    Raises:
      ConfigError: the config cannot be trained.
    """
    stages = _build(run_config)[1]
    keys = {
        f"stages.{stage.name}.{inner}" if len(stages) > 1 else inner
        for stage in stages
        for inner in numbers.select(stage.list_numbers(), stage.name, "/")
    }
    return {key for key, obstacle in find_obstacles(run_config, keys).items() if obstacle is None}


def find_obstacles(run_config: config.RunConfig, keys: Iterable[str]) -> dict[str, str | None]:
    """Return {key: why it cannot differ between the trials of one program}; None: it can.

    Raises:
      ConfigError: the config cannot be trained.
    """
    tasks, stages = _build(run_config)
    names = [stage.name for stage in stages]
    listed = {path for stage in stages for path in stage.list_numbers()}
    obstacles: dict[str, str | None] = {}
    paths: dict[str, str] = {}  # {key: the path of the number} of those that are worth a try
    for key in keys:
        try:
            stage, inner = name_number(key, names)
        except ValueError as error:
            obstacles[key] = str(error.args[0])
            continue
        paths[key] = f"{stage}/{inner}"
        if inner in BUDGETS or paths[key] not in listed:
            obstacles[key] = explain(stages[names.index(stage)], inner)
    tried = [path for key, path in paths.items() if key not in obstacles]
    succeeded = try_paths(tasks, stages, run_config.evaluation, tried)
    for key in paths.keys() - obstacles.keys():
        obstacles[key] = None if paths[key] in succeeded else "the program must know it when it is compiled"
    return obstacles


def refuse_constants(stages: Sequence[Stage]) -> None:
    """Refuse trials that differ in what stays a constant, as far as that is known without a trace.

    Raises:
      ConfigError: names the key and the reason.
    """
    for stage in stages:
        listed = dataclasses.replace(stage, differing={}).list_numbers()
        for inner, values in numbers.select(stage.differing, stage.name, "/").items():
            if inner in BUDGETS or f"{stage.name}/{inner}" not in listed:
                raise refuse(f"{stage.name}: {inner}", explain(stage, inner))
            if not values.all():
                raise refuse(f"{stage.name}: {inner}", numbers.ZERO)


@contextmanager
def explain_errors(run_config: config.RunConfig) -> Iterator[None]:
    """Turn an error of a program that must know a number into one that names the key and the reason.

    Raises:
      ConfigError: trials differ in the number.
    """
    try:
        yield
    except jax.errors.JAXTypeError:
        keys = [number.path for number in run_config.trials.numbers] if run_config.trials else []
        for key, obstacle in find_obstacles(run_config, keys).items():
            if obstacle is not None:
                raise refuse(key, obstacle) from None
        raise


def refuse(key: str, reason: str) -> errors.ConfigError:
    """Return the error of a key in which trials cannot differ."""
    what = f"{key} cannot differ between the trials of one run: {reason}"
    return errors.ConfigError(what, "trials", "train a run for each of its values")


def explain(stage: Stage, inner: str) -> str:
    """Return why trials cannot differ in an option of a stage that is no number which could be an argument."""
    if inner in BUDGETS:
        return "the trials of a program take the same number of steps"
    name, _, path = inner.partition(".")
    return numbers.explain_constant(getattr(stage.settings, name), path)


def try_paths(
    tasks: Tasks, stages: Sequence[Stage], settings: config.Evaluation, paths: Sequence[str]
) -> set[str]:
    """Return the paths that can be traced in every stage that has them."""
    succeeded = set(paths)
    shapes: dict[str, base.Weights] = {}
    data = jax.eval_shape(lambda: tasks.data["train"])
    for stage in stages:
        shapes[stage.name] = stage.trace_weights(tasks.family.sample, data, shapes)
        own = [path for path in stage.list_numbers() if path in succeeded]
        program = make_whole(stage, tasks, settings)
        earlier = {before.name: shapes[before.name] for before in stage.earlier}
        succeeded -= set(own) - set(choose_traceable(program, stage.list_numbers(), own, data, earlier))
    return succeeded


def choose_traceable(
    program: Callable, values: Numbers, paths: Sequence[str], *arguments: Any
) -> Sequence[str]:
    """Return as many of the paths as the program can be traced with at once, in place of the configured values."""

    def attempt(chosen: Sequence[str]) -> bool:
        arrays = {path: np.full(VALUES, values[path]) for path in chosen}
        try:
            jax.eval_shape(jax.vmap(program, in_axes=(0, *[None] * len(arguments))), arrays, *arguments)
        except Exception:  # whatever a function raises that must know the number
            return False
        return True

    if not paths or attempt(paths):
        return paths
    chosen: list[str] = []
    for path in paths:
        if attempt([*chosen, path]):
            chosen.append(path)
    return chosen


def make_whole(stage: Stage, tasks: Tasks, settings: config.Evaluation) -> Callable:
    """Make (numbers, data, earlier) -> what one trial of a stage computes: its start, a step and a measurement."""
    mesh = meshes.make_mesh(jax.local_devices()[:1], stage.training.tasks_per_step, 1)
    built = Loop(
        stage.build_algorithm(),
        tasks.family.sample,
        optimizer.build(stage.training),
        stage.training,
        mesh,
        stage,
    )
    step = loop.make_trial_step(built)
    for _ in stage.axes:
        step = jax.vmap(step, in_axes=(0, None, 0, None, None))
    problem = tasks.evaluated.problem

    def compute(values: Numbers, data: base.PyTree, earlier: dict[str, base.Weights]):
        own, keys = stage.take_numbers(values), stage.make_keys()
        weights = own.make_start(tasks.family.sample)(data, keys, earlier)
        state = State(weights, make_memory(optimizer.build(own.training), len(stage.axes))(weights))
        state, metrics, _ = step(state, data, keys, jnp.uint32(0), values)
        chosen = variants.choose_variants(own, problem, settings.modes, settings.inner_steps)

        def measure(weights: base.Weights):
            episode = tasks.family.sample(data, jax.random.key(0))

            def answer(algorithm: base.Algorithm, learner: base.PyTree):
                return algorithm.predict(learner, episode.query.inputs)

            return variants.observe_variants(chosen, weights, episode.support, answer)

        for _ in stage.axes:
            measure = jax.vmap(measure)
        return metrics, measure(state.weights)

    return compute


def _build(run_config: config.RunConfig) -> tuple[Tasks, list[Stage]]:
    """Build the tasks and the stages of trial 0."""
    single = config.make_trial_config(run_config, 0)
    hardware.select(single.accelerator)
    tasks = assembly.outline_tasks(single)
    return tasks, assembly.build_stages(single, tasks.family.problem)
