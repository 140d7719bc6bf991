"""One run: select the devices, open the directory, build everything, train the stages, measure them, save."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from metarun import assembly, base, config, errors, hardware, signals, trees
from metarun.assembly import Tasks
from metarun.config import differences
from metarun.evaluation import episodes, run_evaluation, variants
from metarun.figures import run_pictures
from metarun.progress import Progress
from metarun.runs import checkpoints, directory, run_log
from metarun.runs.checkpoints import Checkpoint
from metarun.runs.directory import RunDirectory
from metarun.stages import Stage, Trained
from metarun.training import optimizer
from metarun.training.stage_run import Session, StageRun, read_facts

logger = logging.getLogger("metarun")


def train(
    run_config: config.RunConfig, path: Path, resume: bool, argv: list[str], progress: Progress
) -> dict[str, Any]:
    """Train every stage in the run directory `path`, measure them, and write and return the result.

    Raises:
      MetarunError: what the user can act on, with its exit code; the run directory says how far it came.
      Stopped: a signal; the state is saved.
    """
    devices = hardware.select(run_config.accelerator, run_config.replicas)
    with (
        RunDirectory.open(path, resume) as run,
        run_log.copy_log(run.log),
        signals.StopRequest() as stop,
    ):
        settle_config(run, run_config)
        names = [f"{device.platform}:{device.id} {device.device_kind}" for device in devices]
        run.write_environment(argv, names)
        progress.run_opened(str(path), ", ".join(names), run.resumed)
        with run_log.report_status(run):
            tasks, stages = assemble(run_config, devices[0])
            session = Session(
                run, devices, tasks, run_config.evaluation, run_config.checkpoint, progress, stop
            )
            trained = train_stages(session, stages)
            result = evaluate(session, stages, trained)
            run.write_status("done", stages[-1].name, stages[-1].training.steps)
    return result


def settle_config(run: RunDirectory, run_config: config.RunConfig) -> None:
    """Write the config of a new run; of a resumed one, refuse a config that would give other numbers."""
    if run.resumed:
        file = run.path / directory.CONFIG
        differences.check_resume(config.load(file), run_config, str(file))
    run.write_config(config.to_yaml(run_config))


def assemble(run_config: config.RunConfig, device: jax.Device) -> tuple[Tasks, list[Stage]]:
    """Build the tasks and all stages, and trace every stage, before anything is compiled.

    Raises:
      ConfigError: what a stage cannot do, or the final evaluation.
    """
    tasks = assembly.build_tasks(run_config, device)
    stages = assembly.build_stages(run_config, tasks.family.problem)
    trace(run_config.evaluation, tasks, stages)
    return tasks, stages


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
    begun = find_progress(session, stages)
    earlier: dict[str, base.Weights] = {}
    trained: dict[str, Trained] = {}
    for stage in stages:
        stage_run = StageRun(session, stage, earlier, begun.get(stage.name))
        weights = jax.device_put(stage_run.train(), session.devices[0])
        earlier = earlier | {stage.name: weights}
        trained[stage.name] = Trained(stage.training.steps, weights)
        if session.evaluation.checkpoint == "best":
            trained[stage.name] = restore_best(session, stage, trained[stage.name])
    return trained


def find_progress(session: Session, stages: list[Stage]) -> dict[str, Checkpoint]:
    """Return the checkpoint that each stage goes on from, and cut metrics.jsonl back to the last of them.

    A stage whose last checkpoint is damaged is trained to its end again, and the stages after it from their start.
    """
    begun: dict[str, Checkpoint] = {}
    finished, metrics_bytes = True, 0
    for stage in stages:
        with session.run.checkpoints(stage.name, session.checkpoint.keep) as saved:
            if not finished:
                saved.clear()
            elif newest := saved.newest_valid():
                begun[stage.name], metrics_bytes = newest, read_facts(newest).metrics_bytes
        finished = stage.name in begun and begun[stage.name].step == stage.training.steps
    session.run.metrics.truncate(metrics_bytes)
    return begun


def restore_best(session: Session, stage: Stage, last: Trained) -> Trained:
    """Return the stage at its best validation, or at its last step if none was validated."""
    with session.run.checkpoints(stage.name, session.checkpoint.keep) as saved:
        best = saved.best_valid()
    if best is None:
        return last
    shapes = jax.eval_shape(lambda: last.weights)
    return Trained(best.step, jax.device_put(checkpoints.load_weights(best, shapes), session.devices[0]))


def evaluate(session: Session, stages: list[Stage], trained: dict[str, Trained]) -> dict[str, Any]:
    """Measure the stages, write result, episodes and pictures, and return the result."""
    evaluation = run_evaluation.evaluate(
        stages, trained, session.tasks, session.evaluation, session.progress, session.stop.check
    )
    for name, columns in evaluation.values.items():
        session.run.write_episodes(name, session.evaluation.split, columns)
    draw_pictures(session, stages, trained)
    result = {"run": str(session.run.path)} | evaluation.result
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
    devices = hardware.select(run_config.accelerator, run_config.replicas)
    tasks = assembly.build_tasks(run_config, devices[0])
    stages = assembly.build_stages(run_config, tasks.family.problem)
    shapes = trace(run_config.evaluation, tasks, stages)
    lines: list[str] = []
    for stage in stages:
        learners = len(stage.positions)
        beside = f"{learners} learners side by side, each with " if learners > 1 else ""
        lines.append(
            f"{stage.name}: {beside}{trees.size(shapes[stage.name].trained) // learners:,} parameters, "
            f"{stage.training.steps:,} steps of {stage.training.tasks_per_step} tasks "
            f"on {len(devices)} {devices[0].platform} device(s)"
        )
    return "\n".join(lines)
