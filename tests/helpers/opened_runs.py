"""Learners that are ready to adapt, of algorithms that a test writes, without any run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax

from metarun import base, config
from metarun.assembly import Tasks
from metarun.config import Selection
from metarun.finished.finished_run import FinishedRun
from metarun.finished.opened_run import OpenedRun
from metarun.finished.prediction import TrainedRun
from metarun.stages import Stage, Trained


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of a plug-in that has none of its own."""

    width: int = 1


def make_stage(
    name: str, problem: base.Problem, make: Callable[[base.Problem], base.Algorithm] | None = None
) -> Stage:
    """Make a stage of an algorithm without inner steps, whose name is that of the stage.

    Args:
      make: makes the algorithm for a problem; None: the algorithm is never built.
    """

    class MadeStage(Stage):
        def build_algorithm(self, mode=None, inner_steps=None, problem=None):
            return make(problem or self.problem)

    selection = Selection(name, Config())
    settings = config.Stage(name, selection, selection, config.Training(steps=1))
    return MadeStage(settings, problem, (), {}, 0, 0, None)


def make_run(stage: Stage) -> FinishedRun:
    """Make a finished run of one stage, without any file."""
    run_config = config.RunConfig(task=stage.settings.algorithm, stages=(stage.settings,))
    return FinishedRun(Path("run"), None, run_config, stage.name)


def open_learner(
    name: str, family: base.TaskFamily, make: Callable[[base.Problem], base.Algorithm]
) -> TrainedRun:
    """Open a learner without weights, of an algorithm that `make` makes for a problem."""
    stage = make_stage(name, family.problem, make)
    tasks = Tasks(family, family, dict(family.data), {})
    opened = OpenedRun(
        make_run(stage), tasks, [stage], {name: Trained(1, base.Weights(()))}, jax.devices()[0]
    )
    return TrainedRun(opened, {}, "inductive", None)
