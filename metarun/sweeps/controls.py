"""The controls of a config: what has to be trained to show what its method owes to what.

A control is the same config with some keys changed, and is compared with the method on the same frozen episodes, seed
by seed. Method and controls train with the same seeds, as replicas.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarun import config, errors
from metarun.config.control_section import METHOD
from metarun.runs import directory, seals, stage_reference
from metarun.sweeps import probe
from metarun.sweeps.probe import StageFlops
from metarun.sweeps.request import FIXED, SEED

LEAST_SEEDS = 3  # of a comparison that is about more than one training
# What a control leaves as it is, so that all answer the same episodes with the same seeds.
UNTOUCHED = (*FIXED, SEED, "task")
EXAMPLE = "write controls: [{name: alone, says: the same steps without it, changes: [KEY=VALUE]}]"


class PlannedRun(NamedTuple):
    """The method or one of its controls."""

    name: str  # of its run directory
    says: str  # what it is, in a few words
    stage: str  # that is compared, the last one
    against: tuple[str, ...]  # the stages of the method that it is a control of; empty: it is the method
    config: config.RunConfig


class Plan(NamedTuple):
    """What is trained and compared."""

    file: Path
    runs: tuple[PlannedRun, ...]  # the method first
    trained: Path | None  # the run that is the method and has been trained before; None: it is trained here

    @property
    def method(self) -> PlannedRun:
        """The unchanged config."""
        return self.runs[0]

    @property
    def controls(self) -> tuple[PlannedRun, ...]:
        """All runs but the method."""
        return self.runs[1:]

    @property
    def untrained(self) -> tuple[PlannedRun, ...]:
        """The runs that are trained here."""
        return self.controls if self.trained else self.runs

    def describe(self) -> dict[str, Any]:
        """Return all that decides what is trained, ready for JSON: two equal descriptions are the same runs."""
        return {
            "method": str(self.trained.resolve()) if self.trained else None,
            "runs": {run.name: config.document(run.config) for run in self.untrained},
        }

    def hash(self) -> str:
        """Return eight hexadecimal digits of the description."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:8]


# Config -> {stage: what its training costs}
CountFlops = Callable[[config.RunConfig], Mapping[str, StageFlops]]


def make_plan(
    file: Path,
    overrides: Sequence[str] = (),
    seeds: int | None = None,
    count_flops: CountFlops = probe.count_flops,
) -> Plan:
    """Return what to train for the controls of a config.

    Args:
      file: a config, or a run directory: its own config counts, and if it is finished with as many seeds as are asked
        for, and there are no overrides, it is the method and is not trained again.
      seeds: replicas of every run; None: those of the config, and at least LEAST_SEEDS.
      count_flops: is asked if a control has the budget of the method.

    Raises:
      ConfigError: there are no controls, or one of them is impossible.
      CheckpointError: the folder is no run, or its config is not the one that it was trained with.
    """
    run = file if file.is_dir() else None
    if run is not None:
        directory.read_config(run)
        seals.check(run)
    file = file / directory.CONFIG if run else file
    base = config.load(file, overrides, stage_reference.find_stage)
    refuse_impossible(base, file)
    replicas = seeds or max(base.replicas, LEAST_SEEDS)
    planned = [plan_control(file, base, control, overrides, replicas) for control in base.controls]
    names = [stage.name for stage in base.stages]
    last = max(names.index(stage) for run in planned for stage in run.against)
    unchanged = config.load(file, [*overrides, f"replicas={replicas}"], stage_reference.find_stage)
    method = PlannedRun(METHOD, "the method", names[last], (), cut(unchanged, last))
    controls = list(planned)
    if any(control.budget == "method" for control in base.controls):
        flops = count_flops(method.config)
        for place, control in enumerate(base.controls):
            if control.budget == "method":
                allowed = max(flops[stage].total for stage in planned[place].against)
                controls[place] = equalise(
                    planned[place], allowed, count_flops, f"{file}: controls.{control.name}"
                )
    is_trained = run and not overrides and base.replicas == replicas and (run / directory.RESULT).exists()
    return Plan(file, (method, *controls), run if is_trained else None)


def refuse_impossible(base: config.RunConfig, file: Path) -> None:
    """Raise ConfigError if there is nothing to train, or the replicas of the config are no seeds."""
    if not base.controls:
        raise errors.ConfigError("this config has no controls", str(file), EXAMPLE)
    if base.trials is not None:
        what = "the replicas of this run are trials, which differ in more than their seeds"
        raise errors.ConfigError(what, str(file), "take the config of one trial")


def plan_control(
    file: Path, base: config.RunConfig, control: config.Control, overrides: Sequence[str], replicas: int
) -> PlannedRun:
    """Return one control as a run.

    Raises:
      ConfigError: its changes are impossible, or change what has to be equal, or a stage is not there.
    """
    where = f"{file}: controls.{control.name}"
    for change in control.changes:
        head = change.partition("=")[0].partition(".")[0]
        if head in UNTOUCHED:
            what = f"a control cannot change {head}, because all must answer the same episodes with the same seeds"
            raise errors.ConfigError(what, where, f"leave {change} out, or write a config of its own")
    try:
        texts = [*overrides, *control.changes, f"replicas={replicas}"]
        changed = config.load(file, texts, stage_reference.find_stage)
    except errors.ConfigError as error:
        raise errors.ConfigError(f"{error.what} ({error.where})", where, error.remedy) from None
    against = [find_stage(base, name, "against", where) for name in control.against or [None]]
    place = find_stage(changed, control.stage, "stage", where)
    names = tuple(base.stages[number].name for number in against)
    return PlannedRun(control.name, control.says, changed.stages[place].name, names, cut(changed, place))


def equalise(run: PlannedRun, allowed: float, count_flops: CountFlops, where: str) -> PlannedRun:
    """Return the run whose last stage ends when the run has cost so many FLOPs.

    Raises:
      ConfigError: what the stage stands on has cost as many already.
    """
    *before, last = run.config.stages
    counted = count_flops(run.config)[run.stage]
    left = allowed - (counted.total - counted.own)
    if left <= 0:
        what = f"the method costs {allowed:.3g} FLOPs, and nothing of it is left for the stage {run.stage}"
        raise errors.ConfigError(what, where, "set budget: own, or give the stages before it fewer steps")
    whole = dataclasses.replace(last.training, steps=None, seconds=None, flops=left)
    stages = (*before, dataclasses.replace(last, training=whole))
    return run._replace(config=dataclasses.replace(run.config, stages=stages))


def find_stage(run_config: config.RunConfig, name: str | None, key: str, where: str) -> int:
    """Return the place of a stage that is compared; None: the last one.

    Raises:
      ConfigError: there is no such stage, or it is several learners.
    """
    names = [stage.name for stage in run_config.stages]
    name = name or names[-1]
    if name not in names:
        raise errors.ConfigError(f"{key} names no stage: {name}", where, f"use one of {', '.join(names)}")
    place = names.index(name)
    if run_config.stages[place].copies is not None:
        what = f"the stage {name} has copies, and what is compared is one learner"
        raise errors.ConfigError(
            what, where, f"add stages.{name}.copies=null to changes, or name another stage"
        )
    return place


def cut(run_config: config.RunConfig, last: int) -> config.RunConfig:
    """Return the config without the stages after a place, and without controls of its own."""
    return dataclasses.replace(run_config, stages=run_config.stages[: last + 1], controls=())
