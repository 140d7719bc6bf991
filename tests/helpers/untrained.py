"""Learners with the weights that training begins with, of any config, without a run directory."""

from pathlib import Path
from typing import Any

import jax

from metarun import assembly, config
from metarun.finished.finished_run import FinishedRun
from metarun.finished.opened_run import OpenedRun
from metarun.finished.prediction import TrainedRun
from metarun.stages import Trained

TRAINING = {"steps": 1, "tasks_per_step": 2}


def make_learner(task: dict[str, Any], model: dict[str, Any], algorithm: dict[str, Any]) -> TrainedRun:
    """Make a learner that is ready to adapt."""
    parts = {"task": task, "model": model, "algorithm": algorithm, "training": TRAINING}
    run_config = config.load(parts | {"accelerator": {"platform": "cpu", "devices": 1}})
    device = jax.devices()[0]
    tasks = assembly.build_tasks(run_config, device)
    stages = assembly.build_stages(run_config, tasks.family.problem)
    start = jax.jit(stages[0].make_start(tasks.family.sample))
    trained = {stages[0].name: Trained(1, start(tasks.data["train"], stages[0].make_keys(), {}))}
    finished = FinishedRun(Path("run"), None, run_config, stages[0].name)
    return TrainedRun.take_first(OpenedRun(finished, tasks, stages, trained, device))
