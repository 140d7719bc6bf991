"""One run: select the devices, open the directory, build everything, train the stages, measure them, save."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax

from metarun import assembly, base, config, errors, hardware, signals, trees
from metarun.assembly import Tasks
from metarun.config import differences
from metarun.evaluation import episodes, run_evaluation, variants
from metarun.figures import run_pictures
from metarun.hosts.processes import Processes
from metarun.hosts.transfers import collect
from metarun.progress import Progress
from metarun.runs import code_copies, directory, picture_range, run_log
from metarun.runs.bystander import Bystander
from metarun.runs.directory import RunDirectory
from metarun.sinks import launch, registry
from metarun.stages import Stage, Trained
from metarun.training import cost, optimizer, saved_progress, task_chunks, traceable, trial_memory
from metarun.training.session import Session
from metarun.training.stage_run import StageRun, make_mesh

logger = logging.getLogger("metarun")


def train(
    run_config: config.RunConfig,
    path: Path,
    resume: bool,
    argv: list[str],
    progress: Progress,
    processes: Processes | None = None,
) -> dict[str, Any]:
    """Train every stage in the run directory `path`, measure them, and write and return the result.

    Args:
      processes: that train the run together. The first of them chooses the path, shows progress, writes, and has the
        result; the result of the others is empty. None: this process alone.

    Raises:
      MetarunError: what the user can act on, with its exit code; the run directory says how far it came.
      Stopped: a signal; the state is saved.
    """
    processes, run_config = processes or Processes(), config.settle_trials(run_config)
    registry.refuse_missing(run_config.sinks, errors.ConfigError, "sinks")
    with signals.StopRequest() as stop, processes.together(stop):
        own = hardware.select(run_config.accelerator)
        devices = processes.list_devices(own)
        path = Path(processes.share(str(path)))
        with (
            RunDirectory.open(path, resume) if processes.is_first else Bystander(path) as run,
            run_log.copy_log(run.log),
        ):
            processes.check_same(describe_alike(run_config, resume), "the config")
            run_config = settle_config(run, run_config)
            if processes.is_first:
                code_copies.settle(path, assembly.read_outside_code(run_config))
            names = [f"{device.platform}:{device.id} {device.device_kind}" for device in devices]
            run.write_environment(argv, names)
            progress = progress if processes.is_first else Progress()
            progress.run_opened(str(path), ", ".join(names), run.resumed)
            with (
                launch.follow(path, run_config.sinks if processes.is_first else ()),
                run_log.report_status(run),
                processes.explain_losses(),
            ):
                return train_and_measure(run, devices, run_config, progress, stop, processes)


def train_and_measure(
    run: RunDirectory,
    devices: list[jax.Device],
    run_config: config.RunConfig,
    progress: Progress,
    stop: signals.StopRequest,
    processes: Processes,
) -> dict[str, Any]:
    """Train every stage and measure them in an open run directory; see `train`."""
    tasks, stages, _ = assemble(run_config, hardware.select_own(devices))
    session = Session(
        run,
        devices,
        tasks,
        run_config.evaluation,
        run_config.checkpoint,
        progress,
        stop,
        processes,
        run_config.accelerator,
    )
    if processes.is_first and (known := picture_range.measure_range(tasks.family.data["train"])):
        picture_range.write(run.path, known)
    processes.meet()  # data may be prepared for minutes, and no collective may wait for them
    stages = task_chunks.replace(stages, processes.share([stage.training.task_chunk for stage in stages]))
    settled = tuple(stage.settings for stage in stages)
    run.write_config(config.to_yaml(dataclasses.replace(run_config, stages=settled)))
    with traceable.explain_errors(run_config):
        trained = train_stages(session, stages)
    result = evaluate(session, stages, trained) if processes.is_first else {}
    run.write_status("done", stages[-1].name, stages[-1].training.steps)
    return result


def describe_alike(run_config: config.RunConfig, resume: bool) -> str:
    """Return what must be the same in all processes of a run, in lines."""
    accelerator = dataclasses.replace(run_config.accelerator, hosts=config.Hosts())
    text = config.to_yaml(dataclasses.replace(run_config, accelerator=accelerator))
    hashes = [f"code: {code.name} {code.digest}" for code in assembly.read_outside_code(run_config)]
    return "\n".join([f"resume: {resume}", *hashes, text])


def settle_config(run: RunDirectory, run_config: config.RunConfig) -> config.RunConfig:
    """Write and return the config of a run. A resumed run keeps what its first start has settled.

    Raises:
      ConfigError: the config of a resumed run would give other numbers.
    """
    if run.resumed:
        file = run.path / directory.CONFIG
        before = config.load(file)
        differences.check_resume(before, run_config, str(file))
        run_config = differences.keep_settled(before, run_config)
    run.write_config(config.to_yaml(run_config))
    return run_config


class Assembled(NamedTuple):
    """What a config turns into before anything is compiled."""

    tasks: Tasks
    stages: list[Stage]
    shapes: dict[str, base.Weights]  # of the weights of each stage, by its name


def assemble(run_config: config.RunConfig, device: jax.Device) -> Assembled:
    """Build the tasks and all stages, trace every stage, and settle what the config leaves open, before compiling.

    Raises:
      ConfigError: what a stage cannot do, or the final evaluation.
    """
    tasks = assembly.build_tasks(run_config, device)
    stages = assembly.build_stages(run_config, tasks.family.problem)
    traceable.refuse_constants(stages)
    with traceable.explain_errors(run_config):
        shapes = trace(run_config.evaluation, tasks, stages)
    return Assembled(tasks, task_chunks.settle(stages, shapes, tasks, device), shapes)


def trace(settings: config.Evaluation, tasks: Tasks, stages: list[Stage]) -> dict[str, base.Weights]:
    """Build and trace every stage, and return the shapes of its weights by its name. Computes nothing.

    Raises:
      ConfigError: what a stage cannot do, or the final evaluation.
    """
    episodes.freeze(tasks, settings)
    for stage in stages:
        stage.build_algorithm()
    variants.refuse_steps_without_loop(stages, settings)
    for stage in stages:
        variants.choose_variants(stage, tasks.family.problem, settings.modes, settings.inner_steps)
    shapes: dict[str, base.Weights] = {}
    for stage in stages:
        with name_stage(stage, alone=len(stages) == 1):
            weights = stage.trace_weights(tasks.family.sample, tasks.data["train"], shapes)
            jax.eval_shape(optimizer.build(stage.training).init, weights.trained)
            variants.check_ways(stage, tasks, settings.modes[0], weights)
        shapes[stage.name] = weights
    return shapes


@contextmanager
def name_stage(stage: Stage, alone: bool) -> Iterator[None]:
    """Let a ConfigError say which stage it is about, unless the stage is alone."""
    try:
        yield
    except errors.ConfigError as error:
        if alone:
            raise
        raise errors.ConfigError(error.what, f"stage {stage.name}: {error.where}", error.remedy) from error


def train_stages(session: Session, stages: list[Stage]) -> dict[str, Trained]:
    """Train every stage in turn, and return what each has learned: at its last step, or at its best validation."""
    begun = saved_progress.find(session, stages)
    earlier: dict[str, base.Weights] = {}
    trained: dict[str, Trained] = {}
    stage_run: StageRun | None = None
    for stage in stages:
        diverged = stage_run.survivors.diverged if stage_run else {}
        stage_run = StageRun(session, stage, earlier, begun.get(stage.name), diverged)
        weights = jax.device_put(collect(stage_run.train()), session.device)
        earlier = earlier | {stage.name: weights}
        trained[stage.name] = Trained(stage.training.steps, weights, stage_run.survivors.diverged)
        if session.evaluation.checkpoint == "best":
            trained[stage.name] = saved_progress.restore_best(session, stage, trained[stage.name])
    return trained


def evaluate(session: Session, stages: list[Stage], trained: dict[str, Trained]) -> dict[str, Any]:
    """Measure the stages, write result, episodes and pictures, and return the result."""
    evaluation = run_evaluation.evaluate(
        stages, trained, session.tasks, session.evaluation, session.progress, session.processes.check_signal
    )
    for name, columns in evaluation.values.items():
        session.run.write_episodes(name, session.evaluation.split, columns)
    draw_pictures(session, stages, trained)
    used = max(make_mesh(stage, session.devices, session.accelerator).size for stage in stages)
    accelerator = hardware.describe(session.devices[:used])
    result = {"run": str(session.run.path), "accelerator": accelerator} | evaluation.result
    session.run.write_result(result)
    return result


def draw_pictures(session: Session, stages: list[Stage], trained: dict[str, Trained]) -> None:
    """Draw what can be drawn: a failing picture must not cost a long training's result."""
    try:
        run_pictures.write(session.run.path, stages, trained, session.tasks, session.evaluation)
    except errors.MetarunError:
        raise
    except Exception as error:
        logger.warning("no pictures: %s: %s", type(error).__name__, error)
        logger.debug("no pictures", exc_info=True)


def describe_dry_run(run_config: config.RunConfig) -> str:
    """Build and trace everything, so that what cannot work fails here; return one line about each stage."""
    devices = hardware.select(run_config.accelerator)
    _, stages, shapes = assemble(run_config, devices[0])
    lines: list[str] = []
    for stage in stages:
        learners = len(stage.positions)
        beside = f"{learners} learners side by side, each with " if learners > 1 else ""
        lines.append(
            f"{stage.name}: {beside}{trees.size(shapes[stage.name].trained) // learners:,} parameters, "
            f"{stage.training.steps:,} steps of {stage.training.tasks_per_step} tasks "
            f"on {make_mesh(stage, devices, run_config.accelerator).size} {devices[0].platform} device(s)"
        )
    return "\n".join(lines)


def count_trials_that_fit(run_config: config.RunConfig) -> int:
    """Return how many of the replicas of a run fit into the memory side by side. Compiles their program.

    Raises:
      ConfigError: the config cannot be trained.
    """
    devices = hardware.select(run_config.accelerator)
    tasks, stages, _ = assemble(run_config, devices[0])
    return trial_memory.count_trials_that_fit(run_config, devices, tasks, stages)


def measure_cost(run_config: config.RunConfig, progress: Progress) -> list[cost.Cost]:
    """Return what training costs for every stage, from a few steps of each. Writes no run directory."""
    devices = hardware.select(run_config.accelerator)
    tasks, stages, _ = assemble(run_config, devices[0])
    return cost.measure(run_config, devices, tasks, stages, progress)
