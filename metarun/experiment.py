"""One run: select the accelerator, open the directory, build everything, train the stages, measure, save."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from metarun import (
    assessment,
    base,
    building,
    config,
    differences,
    errors,
    measuring,
    parallel,
    pictures,
    population,
    reporting,
    stopping,
    trees,
)
from metarun.assessment import Outcome, Problem, Trained
from metarun.progress import Progress
from metarun.runs import directory
from metarun.runs.checkpoints import Checkpoint
from metarun.runs.directory import RunDirectory
from metarun.stages import Session, StageRun, read_facts

logger = logging.getLogger("metarun")


def train(
    run_config: config.RunConfig, path: Path, resume: bool, argv: list[str], progress: Progress
) -> Outcome:
    """Train every stage in the run directory `path`, measure them, and write the result there.

    Raises:
      MetarunError: what the user can act on, with its exit code; the run directory says how far it came.
      Stopped: a signal; the state is saved.
    """
    devices = parallel.select(run_config.accelerator, run_config.replicas)
    with RunDirectory.open(path, resume) as run, reporting.logged(run.log), stopping.StopRequest() as stop:
        settle_config(run, run_config)
        names = [f"{device.platform}:{device.id} {device.device_kind}" for device in devices]
        run.write_environment(argv, names)
        progress.run_opened(str(path), ", ".join(names), run.resumed)
        with reporting.reported(run):
            session = open_session(run_config, run, devices, progress, stop)
            result = train_stages(session)
            run.write_result(result)
            run.status("done", run_config.stages[-1].name, run_config.stages[-1].training.steps)
    return Outcome(path, result)


def settle_config(run: RunDirectory, run_config: config.RunConfig) -> None:
    """Write the config of a new run; of a resumed one, refuse a config that would give other numbers."""
    if run.resumed:
        file = run.path / directory.CONFIG
        differences.refuse_other_numbers(config.load(file), run_config, str(file))
    run.write_config(config.to_yaml(run_config))


def dry_run(run_config: config.RunConfig) -> str:
    """Build and trace everything, so that what cannot work fails here; one line on each stage."""
    devices = parallel.select(run_config.accelerator, run_config.replicas)
    problem = assessment.prepare(run_config, devices[0])
    lines: list[str] = []
    for index, (name, weights) in enumerate(trace(run_config, problem).items()):
        stage_training = run_config.stages[index].training
        learners = len(population.positions(run_config, index))
        beside = f"{learners} learners side by side, each with " if learners > 1 else ""
        lines.append(
            f"{name}: {beside}{trees.size(weights.trained) // learners:,} parameters, "
            f"{stage_training.steps:,} steps of {stage_training.tasks_per_step} tasks "
            f"on {len(devices)} {devices[0].platform} device(s)"
        )
    return "\n".join(lines)


def trace(run_config: config.RunConfig, problem: Problem) -> dict[str, base.Weights]:
    """{stage: shapes of its weights}. Builds every stage, traces its start, and computes nothing.

    Raises:
      ConfigError: what a stage cannot do, or the final evaluation, before the first one is trained.
    """
    measuring.check_split(problem.judge, run_config.evaluation.split)
    for index in range(len(run_config.stages)):
        build_once(run_config, index, problem.family)
    traced: dict[str, base.Weights] = {}
    for index, stage in enumerate(run_config.stages):
        with of_stage(run_config, index):
            weights = assessment.state_template(run_config, index, problem, traced).weights
            measuring.check_stage(run_config, index, problem.judge, problem.family, weights)
        traced[stage.name] = weights
    return traced


@contextmanager
def of_stage(run_config: config.RunConfig, index: int) -> Iterator[None]:
    """Let a ConfigError say of which stage it is, where there are several."""
    try:
        yield
    except errors.ConfigError as error:
        if len(run_config.stages) == 1:
            raise
        where = f"stage {run_config.stages[index].name}: {error.where}"
        raise errors.ConfigError(error.what, where, error.remedy) from error


def build_once(run_config: config.RunConfig, index: int, family: base.TaskFamily) -> None:
    """Build all algorithms of a stage, so that a bad reference fails before anything compiles."""
    building.algorithm(run_config, index, family)
    wanted = run_config.evaluation
    measuring.variants(run_config, index, family, wanted.modes, wanted.inner_steps)


def open_session(
    run_config: config.RunConfig,
    run: RunDirectory,
    devices: list[jax.Device],
    progress: Progress,
    stop: stopping.StopRequest,
) -> Session:
    """Build all that the stages share, and trace every stage."""
    problem = assessment.prepare(run_config, devices[0])
    trace(run_config, problem)
    return Session(run_config, run, devices, problem, progress, stop)


def train_stages(session: Session) -> dict[str, Any]:
    """Every stage in turn, then their final evaluation."""
    begun = take_up(session)
    earlier: dict[str, base.Weights] = {}
    trained: dict[str, Trained] = {}
    for index, stage in enumerate(session.config.stages):
        stage_run = StageRun(session, index, earlier, begun.get(stage.name))
        weights = jax.device_put(stage_run.train(), session.devices[0])
        earlier = earlier | {stage.name: weights}
        trained[stage.name] = Trained(stage.training.steps, weights)
        if session.config.evaluation.checkpoint == "best":
            trained[stage.name] = best_of(session, index, earlier, trained[stage.name])
    result, values = assessment.measure(
        session.config, session.problem, trained, session.progress, session.stop.check
    )
    for name, columns in values.items():
        session.run.write_episodes(name, session.config.evaluation.split, columns)
    leave_pictures(session, trained)
    return {"run": str(session.run.path)} | result


def take_up(session: Session) -> dict[str, Checkpoint]:
    """{stage: the checkpoint that it goes on from}; cuts metrics.jsonl back to the last of them.

    A stage whose last checkpoint is damaged is trained to its end again, and the stages after it from their start.
    """
    begun: dict[str, Checkpoint] = {}
    finished, saved = True, 0
    for stage in session.config.stages:
        with session.run.checkpoints(stage.name, session.config.checkpoint.keep) as stage_checkpoints:
            if not finished:
                stage_checkpoints.clear()
            elif found := stage_checkpoints.newest_valid():
                begun[stage.name], saved = found, read_facts(found).metrics_bytes
        finished = stage.name in begun and begun[stage.name].step == stage.training.steps
    session.run.metrics.truncate(saved)
    return begun


def best_of(session: Session, index: int, earlier: dict[str, base.Weights], last: Trained) -> Trained:
    """The stage at its best validation, or at its last step where none was validated."""
    stage = session.config.stages[index]
    with session.run.checkpoints(stage.name, session.config.checkpoint.keep) as stage_checkpoints:
        found = stage_checkpoints.best_valid()
    if found is None:
        return last
    return assessment.restore(session.config, index, session.problem, earlier, found, session.devices[0])


def leave_pictures(session: Session, trained: dict[str, Trained]) -> None:
    """Draw what can be drawn, of replica 0 and member 0: a failing picture must not cost a long training's result."""
    drawn = {
        stage.name: part._replace(
            weights=population.take(part.weights, population.positions(session.config, index)[0])
        )
        for index, stage in enumerate(session.config.stages)
        if (part := trained.get(stage.name))
    }
    try:
        pictures.write(session, drawn)
    except errors.MetarunError:
        raise
    except Exception as error:
        logger.warning("no pictures: %s: %s", type(error).__name__, error)
        logger.debug("no pictures", exc_info=True)
