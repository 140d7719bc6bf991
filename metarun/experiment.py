"""One run: select the devices, open the directory, build everything, train the stages, measure them, save."""

import dataclasses
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax

from metarun import assembly, base, config, errors, hardware, signals, trees
from metarun.assembly import Tasks
from metarun.config import differences, random_weights
from metarun.evaluation import run_evaluation
from metarun.figures import run_pictures
from metarun.finished import baselines
from metarun.hosts.processes import Processes
from metarun.progress import Progress
from metarun.runs import code_copies, directory, picture_range, run_log, seals, stage_reference, task_file
from metarun.runs.bystander import Bystander
from metarun.runs.directory import RunDirectory
from metarun.sinks import launch, registry
from metarun.stages import Stage, Trained
from metarun.training import (
    budgets,
    cost,
    ledger,
    longer_run,
    room,
    source_weights,
    stage_sequence,
    stage_traces,
    start_costs,
    task_chunks,
    traceable,
    trial_memory,
)
from metarun.training.facts import Spent
from metarun.training.session import Session
from metarun.training.stage_run import make_mesh

logger = logging.getLogger("metarun")


def train(
    run_config: config.RunConfig,
    path: Path,
    resume: bool,
    argv: list[str],
    progress: Progress,
    processes: Processes | None = None,
    extended: Path | None = None,
) -> dict[str, Any]:
    """Train every stage in the run directory `path`, measure them, and write and return the result.

    Args:
      processes: that train the run together. The first of them chooses the path, shows progress, writes, and has the
        result; the result of the others is empty. None: this process alone.
      extended: a finished run that this one, a new one, goes on with; see `config.extension`. None: there is none.

    Raises:
      MetarunError: what the user can act on, with its exit code; the run directory says how far it came.
      Stopped: a signal; the state is saved.
    """
    processes, run_config = processes or Processes(), config.settle_trials(run_config)
    registry.refuse_missing(run_config.sinks, errors.ConfigError, "sinks")
    if extended is not None:
        longer_run.find_end(extended)
        refuse_unknown_data(extended, run_config)
    with signals.StopRequest() as stop, processes.together(stop):
        own = hardware.select(run_config.accelerator)
        devices = processes.list_devices(own)
        path = Path(processes.share(str(path)))
        with (
            RunDirectory.open(path, resume) if processes.is_first else Bystander(path) as run,
            run_log.copy_log(run.log),
        ):
            processes.check_same(describe_alike(run_config, resume), "the config")
            run_config = settle_config(run, run_config, extended)
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
                return train_and_measure(run, devices, run_config, progress, stop, processes, extended)


def train_and_measure(
    run: RunDirectory,
    devices: list[jax.Device],
    run_config: config.RunConfig,
    progress: Progress,
    stop: signals.StopRequest,
    processes: Processes,
    extended: Path | None = None,
) -> dict[str, Any]:
    """Train every stage and measure them in an open run directory; see `train`."""
    kept = task_file.read(extended or run.path)
    own = hardware.select_own(devices)
    tasks, stages, shapes = processes.wait_for(lambda: assemble(run_config, own, extended, kept))
    if processes.is_first:
        task_file.write(run.path, tasks.family.kept)
    measured, saved, accelerator = run_config.evaluation, run_config.checkpoint, run_config.accelerator
    session = Session(run, devices, tasks, measured, saved, progress, stop, processes, accelerator)
    if processes.is_first and (known := picture_range.measure_range(tasks.family.data["train"])):
        picture_range.write(run.path, known)
    processes.meet()  # data may be prepared for minutes, and no collective may wait for them
    stages = task_chunks.replace(stages, processes.share([stage.training.task_chunk for stage in stages]))
    stages = budgets.replace(stages, processes.share([stage.training.steps for stage in stages]))
    settled = tuple(stage.settings for stage in stages)
    run.write_config(config.to_yaml(dataclasses.replace(run_config, stages=settled)))
    if processes.is_first:
        if extended is not None:
            longer_run.carry_over(extended, run, stages)
        source_weights.settle(run, run_config, stages, shapes)
    with traceable.explain_errors(run_config):
        trained, spent = stage_sequence.train(session, stages)
    result = evaluate(session, stages, trained, spent) if processes.is_first else {}
    run.write_status("done", stages[-1].name, spent[stages[-1].name].steps)
    return result


def describe_alike(run_config: config.RunConfig, resume: bool) -> str:
    """Return what must be the same in all processes of a run, in lines."""
    accelerator = dataclasses.replace(run_config.accelerator, hosts=config.Hosts())
    text = config.to_yaml(dataclasses.replace(run_config, accelerator=accelerator))
    hashes = [f"code: {code.name} {code.digest}" for code in assembly.read_outside_code(run_config)]
    return "\n".join([f"resume: {resume}", *hashes, text])


def settle_config(
    run: RunDirectory, run_config: config.RunConfig, extended: Path | None = None
) -> config.RunConfig:
    """Return the config of a run, which a new one writes. A resumed one keeps what its first start has settled.

    Args:
      extended: as of `train`.

    Raises:
      ConfigError: the config of a resumed run would give other numbers.
    """
    if run.resumed:
        seals.check(run.path)
        file = run.path / directory.CONFIG
        before = config.load(file)
        differences.check_resume(before, run_config, str(file))
        refuse_unknown_data(run.path, run_config)
        # It is written once its data are seen to be those of the run.
        return differences.keep_settled(before, run_config)
    if extended is None:
        run_config = assembly.settle_task(run_config)
    run.write_config(config.to_yaml(run_config))
    return run_config


def refuse_unknown_data(path: Path, run_config: config.RunConfig) -> None:
    """Refuse another place of the data to the run at a path, if nothing tells whether they are the same.

    Raises:
      ConfigError: names the keys of the place.
    """
    file = path / directory.CONFIG
    differences.refuse_unknown_data(config.load(file), run_config, task_file.read(path), str(file))


class Assembled(NamedTuple):
    """What a config turns into before anything is compiled."""

    tasks: Tasks
    stages: list[Stage]
    shapes: dict[str, base.Weights]  # of the weights of each stage, by its name


def assemble(
    run_config: config.RunConfig,
    device: jax.Device,
    extended: Path | None = None,
    kept: assembly.Kept = None,
) -> Assembled:
    """Build the tasks and all stages, trace every stage, and settle what the config leaves open, before compiling.

    Args:
      extended: as of `train`.
      kept: what the run that is resumed or extended has kept of its data; see `base.TaskFamily`.

    Raises:
      ConfigError: what a stage cannot do, or the final evaluation.
      DataError: the data cannot be read, or are not those of the run.
    """
    tasks = assembly.build_tasks(run_config, device, kept)
    stages = assembly.build_stages(run_config, tasks.family.problem)
    for stage in filter(random_weights.has_random_network, run_config.stages):
        logger.warning("stage %s: %s (model.weights=FILE)", stage.name, random_weights.SAID)
    traceable.refuse_constants(stages)
    with traceable.explain_errors(run_config):
        shapes = stage_traces.trace(run_config.evaluation, tasks, stages)
    if extended is not None:
        longer_run.refuse_progress(stages[-1], shapes[stages[-1].name], tasks)
    room.refuse_too_large(shapes, device)
    stages = task_chunks.settle(stages, shapes, tasks, device)
    return Assembled(tasks, budgets.settle(stages, shapes, tasks), shapes)


def evaluate(
    session: Session, stages: list[Stage], trained: dict[str, Trained], spent: dict[str, Spent]
) -> dict[str, Any]:
    """Measure the stages, write episodes, result and then pictures, and return the result."""
    check = session.processes.check_signal
    arguments = (stages, trained, session.tasks, session.evaluation, session.progress, check)
    evaluation = session.processes.wait_for(lambda: run_evaluation.evaluate(*arguments))
    for name, columns in evaluation.values.items():
        session.run.write_episodes(name, session.evaluation.split, columns)
    used = max(make_mesh(stage, session.devices, session.accelerator).size for stage in stages)
    accelerator = hardware.describe(session.devices[:used])
    result = {"run": str(session.run.path), "accelerator": accelerator} | evaluation.result
    if sources := stage_reference.read_records(session.run.path):
        result["sources"] = sources
    mode, inherited = session.evaluation.modes[0], start_costs.read_inherited(sources)
    result["costs"] = ledger.list_costs(stages, trained, spent, session.tasks, mode, inherited)
    places = [f"episodes/{name}-{session.evaluation.split}.npz" for name in evaluation.values]
    session.run.write_result(seals.seal_result(session.run.path, session.run.sealed, result, places))
    baselines.write(session.run.path, result, evaluation.baselines)
    draw_pictures(session, stages, trained)
    return result


def draw_pictures(session: Session, stages: list[Stage], trained: dict[str, Trained]) -> None:
    """Draw what can be drawn, once the result is written: no picture costs it, nor the exit code of the training."""
    try:
        run_pictures.write(session.run.path, stages, trained, session.tasks, session.evaluation)
    except errors.MetarunError as error:
        logger.warning("no pictures: %s: %s", error.what, error.where)
    except Exception as error:
        logger.warning("no pictures: %s: %s", type(error).__name__, error)
        logger.debug("no pictures", exc_info=True)


def describe_dry_run(
    run_config: config.RunConfig, extended: Path | None = None, resumed: Path | None = None
) -> str:
    """Build and trace everything, so that what cannot work fails here; return a line about each split and each stage.

    Args:
      extended: as of `train`.
      resumed: the run directory that a training would go on in; None: a new one.
    """
    devices = hardware.select(run_config.accelerator)
    origin = extended or resumed
    kept = None if origin is None else task_file.read(origin)
    if origin is not None:
        refuse_unknown_data(origin, run_config)
    if resumed is not None:
        before = config.load(resumed / directory.CONFIG)
        run_config = dataclasses.replace(
            run_config, task=differences.keep_choices(before.task, run_config.task)
        )
    elif extended is None:
        run_config = assembly.settle_task(run_config)
    tasks, stages, shapes = assemble(run_config, devices[0], extended, kept)
    sources = source_weights.read_all_records(extended or resumed, stages, shapes)
    lines = assembly.describe_splits(run_config, tasks.family)
    for stage in stages:
        learners = len(stage.positions)
        beside = f"{learners} learners side by side, each with " if learners > 1 else ""
        place = f"{make_mesh(stage, devices, run_config.accelerator).size} {devices[0].platform} device(s)"
        lines.append(
            f"{stage.name}: {beside}{trees.size(shapes[stage.name].trained) // learners:,} parameters, "
            f"{source_weights.describe(sources.get(stage.name), budgets.describe(stage.training, place))}"
        )
    return "\n".join(lines)


def count_trials_that_fit(run_config: config.RunConfig) -> int:
    """Return how many of the replicas of a run fit into the memory side by side. Compiles their program.

    Raises:
      ConfigError: the config cannot be trained.
    """
    devices = hardware.select(run_config.accelerator)
    run_config = assembly.settle_task(run_config)
    tasks, stages, _ = assemble(run_config, devices[0])
    return trial_memory.count_trials_that_fit(run_config, devices, tasks, stages)


def measure_cost(run_config: config.RunConfig, progress: Progress) -> list[cost.Cost]:
    """Return what training costs for every stage, from a few steps of each. Writes no run directory."""
    devices = hardware.select(run_config.accelerator)
    run_config = assembly.settle_task(run_config)
    tasks, stages, _ = assemble(run_config, devices[0])
    costs = cost.measure(run_config, devices, tasks, stages, progress)
    pairs = zip(stages, costs, strict=True)
    return [stage_cost for stage, stage_cost in pairs if stage.settings.taken_from is None]
