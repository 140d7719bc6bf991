"""One run: select the accelerator, open the directory, build everything, train the stages, measure, save."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax

from metarun import (
    base,
    building,
    config,
    errors,
    evaluation,
    measuring,
    parallel,
    pictures,
    stopping,
    training,
    trees,
)
from metarun import optimizer as optimizers
from metarun.progress import Progress
from metarun.runs import checkpoints, directory
from metarun.runs.directory import RunDirectory
from metarun.stages import Session, StageRun, read_facts

logger = logging.getLogger("metarun")


class Outcome(NamedTuple):
    """What a run, or an evaluation of one, gave."""

    path: Path
    result: dict[str, Any]


class Trained(NamedTuple):
    """A stage as it is measured."""

    step: int
    weights: base.Weights


def train(
    run_config: config.RunConfig, path: Path, resume: bool, argv: list[str], progress: Progress
) -> Outcome:
    """Train every stage in the run directory `path`, measure them, and write the result there.

    Raises:
      MetarunError: what the user can act on, with its exit code; the run directory says how far it came.
      Stopped: a signal; the state is saved.
    """
    devices = parallel.select(run_config.accelerator)
    with RunDirectory.open(path, resume) as run, logged(run.log), stopping.StopRequest() as stop:
        settle_config(run, run_config)
        names = [f"{device.platform}:{device.id} {device.device_kind}" for device in devices]
        run.write_environment(argv, names)
        progress.run_opened(str(path), ", ".join(names), run.resumed)
        with reported(run):
            session = open_session(run_config, run, devices, progress, stop)
            result = train_stages(session)
            run.write_result(result)
            run.status("done", run_config.stages[-1].name, run_config.stages[-1].training.steps)
    return Outcome(path, result)


def dry_run(run_config: config.RunConfig) -> str:
    """Build everything and trace every stage's first step, so that what cannot work fails here; one line on each."""
    devices = parallel.select(run_config.accelerator)
    _, family, data, _ = prepare(run_config, devices)
    lines, earlier = [], {}
    for index, stage in enumerate(run_config.stages):
        measuring.variants(
            run_config, index, family, run_config.evaluation.modes, run_config.evaluation.inner_steps
        )
        state = state_template(run_config, index, family, data, earlier)
        earlier[stage.name] = state.weights
        lines.append(
            f"{stage.name}: {trees.size(state.weights.trained):,} parameters, {stage.training.steps:,} steps of "
            f"{stage.training.tasks_per_step} tasks on {len(devices)} {devices[0].platform} device(s)"
        )
    return "\n".join(lines)


def evaluate(path: Path, overrides: list[str], split: str | None, progress: Progress) -> Outcome:
    """Measure a run, or one checkpoint of it, on the frozen episodes. Writes nothing.

    Args:
      path: a run directory, or RUN/checkpoints/<stage>/<step>.
      overrides: `key=value` of the evaluation and accelerator sections.
      split: in place of the one that the config evaluates.
    """
    single = path.parent.parent if path.resolve().parent.parent.name == "checkpoints" else None
    root = single.parent if single else path
    directory.read_config(root)
    run_config = config.load(
        root / directory.CONFIG, [*overrides, *([f"evaluation.split={split}"] if split else [])]
    )
    refuse_other_changes(config.load(root / directory.CONFIG), run_config)
    devices = parallel.select(run_config.accelerator)
    run_config, family, data, judge = prepare(run_config, devices)
    trained: dict[str, Trained] = {}
    for index, stage in enumerate(run_config.stages):
        found = choose_checkpoint(
            root, stage.name, path if single else None, run_config.evaluation.checkpoint
        )
        if found is None:
            continue
        template = state_template(run_config, index, family, data, {n: t.weights for n, t in trained.items()})
        weights = jax.device_put(checkpoints.load(found, template).weights, devices[0])
        trained[stage.name] = Trained(found.step, weights)
    if single:
        trained = {path.resolve().parent.name: trained[path.resolve().parent.name]}
    result, _ = measure(run_config, family, judge, trained, progress)
    return Outcome(path, {"run": str(root)} | result)


def prepare(run_config: config.RunConfig, devices: list[jax.Device]):
    """The family as in training, its data on the first device, and the judge."""
    family = building.task_family(run_config.task)
    data = {split: jax.device_put(part, devices[0]) for split, part in family.data.items()}
    return run_config, family, data, measuring.make_judge(run_config, family, data)


def open_session(
    run_config: config.RunConfig,
    run: RunDirectory,
    devices: list[jax.Device],
    progress: Progress,
    stop: stopping.StopRequest,
) -> Session:
    """Build all that the stages share, and every stage once, so that a bad reference fails before compiling."""
    _, family, data, judge = prepare(run_config, devices)
    for index in range(len(run_config.stages)):
        building.algorithm(run_config, index, family)
        measuring.variants(
            run_config, index, family, run_config.evaluation.modes, run_config.evaluation.inner_steps
        )
    return Session(run_config, run, devices, family, data, judge, progress, stop)


def train_stages(session: Session) -> dict[str, Any]:
    """Every stage in turn, then their final evaluation."""
    forget_unsaved_metrics(session)
    earlier: dict[str, base.Weights] = {}
    trained: dict[str, Trained] = {}
    for index, stage in enumerate(session.config.stages):
        stage_run = StageRun(session, index, earlier)
        weights = jax.device_put(stage_run.train(), session.devices[0])
        earlier = earlier | {stage.name: weights}
        trained[stage.name] = Trained(stage.training.steps, weights)
        if session.config.evaluation.checkpoint == "best":
            trained[stage.name] = best_of(session, index, earlier, trained[stage.name])
    result, values = measure(session.config, session.family, session.judge, trained, session.progress)
    for name, columns in values.items():
        session.run.write_episodes(name, session.config.evaluation.split, columns)
    pictures.write(session, trained)
    return {"run": str(session.run.path)} | result


def forget_unsaved_metrics(session: Session) -> None:
    """Cut metrics.jsonl back to the newest checkpoint of the last stage that has one."""
    saved = 0
    for stage in session.config.stages:
        with session.run.checkpoints(stage.name, session.config.checkpoint.keep) as stage_checkpoints:
            if found := stage_checkpoints.newest_valid():
                saved = read_facts(found).metrics_bytes
    session.run.metrics.truncate(saved)


def best_of(session: Session, index: int, earlier: dict[str, base.Weights], last: Trained) -> Trained:
    """The stage at its best validation, or at its last step where none was validated."""
    stage = session.config.stages[index]
    with session.run.checkpoints(stage.name, session.config.checkpoint.keep) as stage_checkpoints:
        found = stage_checkpoints.best_valid()
    if found is None:
        return last
    template = state_template(session.config, index, session.family, session.data, earlier)
    return Trained(found.step, jax.device_put(checkpoints.load(found, template).weights, session.devices[0]))


def state_template(run_config, index: int, family: base.TaskFamily, data, earlier) -> training.State:
    """Shapes and dtypes of a stage's state; computes nothing."""
    stage_training = run_config.stages[index].training
    algorithm = building.algorithm(run_config, index, family)
    mesh = parallel.task_mesh(jax.local_devices()[:1], stage_training.tasks_per_step)
    loop = training.Loop(algorithm, family.sample, optimizers.build(stage_training), stage_training, mesh)
    key = training.stage_key(run_config.seed, index)
    return jax.eval_shape(
        lambda *arguments: training.initial_state(loop, *arguments), data["train"], key, earlier
    )


def measure(
    run_config: config.RunConfig,
    family: base.TaskFamily,
    judge: measuring.Judge,
    trained: dict[str, Trained],
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The result, and {stage: {variant/metric: [episode]}}, of the frozen episodes of the configured split.

    Raises:
      ConfigError: the split is empty, or the learner cannot tell as many classes apart.
    """
    wanted = run_config.evaluation
    if wanted.split not in judge.data:
        raise errors.ConfigError(
            f"the task family has no {wanted.split} split",
            "evaluation.split",
            f"use one of {', '.join(judge.data)}",
        )
    keys = evaluation.episode_keys(wanted.seed, wanted.split, wanted.episodes)
    data = judge.data[wanted.split]
    results, values = {}, {}
    for index, stage in enumerate(run_config.stages):
        if stage.name not in trained:
            continue
        progress.measuring(stage.name, wanted.split, wanted.episodes)
        chosen = measuring.variants(run_config, index, family, wanted.modes, wanted.inner_steps)
        weights = trained[stage.name].weights
        measuring.check_ways(judge, family, next(iter(chosen.values())), weights)
        at_once = stage.training.task_chunk or stage.training.tasks_per_step
        measured = evaluation.make_measure(chosen, judge.family, at_once)(weights, data, keys)
        results[stage.name] = {"step": trained[stage.name].step, **measuring.layout(measured)}
        values[stage.name] = measuring.columns(measured)
    episodes = {
        "count": wanted.episodes,
        "hash": evaluation.episodes_hash(judge.family, data, keys, judge.recipe),
    }
    head = {"step": trained[list(trained)[-1]].step, "split": wanted.split, "modes": list(wanted.modes)}
    return head | {"episodes": episodes, "stages": results}, values


def choose_checkpoint(root: Path, stage: str, asked: Path | None, wanted: str):
    """The checkpoint of a stage that an evaluation means, or None where the stage has not begun."""
    if asked is not None and asked.resolve().parent.name == stage:
        return checkpoints.open_checkpoint(asked)
    folder = root / "checkpoints" / stage
    if not folder.is_dir() and asked is not None:
        return None
    best = checkpoints.Checkpoints(folder).best_valid() if wanted == "best" else None
    return best or checkpoints.open_checkpoint(root, stage)


RESULT_FREE = ("accelerator", "checkpoint")  # sections that may change between two parts of a run


def settle_config(run: RunDirectory, run_config: config.RunConfig) -> None:
    """Write the config of a new run; of a resumed one, refuse a config that would give other numbers."""
    if run.resumed:
        before = config.load(run.path / directory.CONFIG)
        changed = different_keys(comparable(before), comparable(run_config))
        if changed:
            raise errors.ConfigError(
                f"the run was begun with other values of: {', '.join(changed)}",
                str(run.path / directory.CONFIG),
                "resume it with its own config, or begin a new run without --resume",
            )
    run.write_config(config.to_yaml(run_config))


def comparable(run_config: config.RunConfig) -> dict[str, Any]:
    """The config without what cannot change the numbers: where it is computed, chunks, checkpoints."""
    plain = dataclasses.asdict(run_config)
    for name in RESULT_FREE:
        del plain[name]
    for stage in plain["stages"]:
        del stage["training"]["chunk"], stage["training"]["task_chunk"]
    return plain


def different_keys(before: Any, after: Any, prefix: str = "") -> list[str]:
    """The dotted keys at which two trees of plain values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = list(dict.fromkeys([*before, *after]))
        parts = [different_keys(before.get(n), after.get(n), f"{prefix}.{n}".lstrip(".")) for n in names]
        return [key for part in parts for key in part]
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [key for number, pair in pairs for key in different_keys(*pair, f"{prefix}.{number}")]
    return [] if before == after else [prefix]


def refuse_other_changes(before: config.RunConfig, after: config.RunConfig) -> None:
    """An evaluation may set how it measures and where it computes, and nothing that was trained with."""
    plain = [dataclasses.asdict(each) for each in (before, after)]
    changed = [
        key for key in different_keys(*plain) if key.split(".")[0] not in ("evaluation", "accelerator")
    ]
    if changed:
        raise errors.ConfigError(
            f"{', '.join(changed)} cannot change after training",
            "the overrides of metarun eval",
            "override keys of evaluation and accelerator only, for example evaluation.shots=5",
        )


@contextmanager
def reported(run: RunDirectory) -> Iterator[None]:
    """Leave in status.json how the run ended."""
    run.status("running")
    try:
        yield
    except stopping.Stopped as stop:
        run.status("preempted", message=str(stop))
        raise
    except errors.DivergedError as error:
        run.status("diverged", message=error.what)
        raise
    except BaseException as error:
        logger.debug("the run failed", exc_info=True)
        run.status("failed", message=f"{type(error).__name__}: {error}"[:500])
        raise


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Copy what the logger says, tracebacks included, to the run's log."""
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(logging.DEBUG)
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()
