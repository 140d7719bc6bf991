"""Sweeps without training: the programs of a rung get results that a formula gives."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from helpers.runs import SINGLE
from metarun import config
from metarun.runs.directory import RunDirectory
from metarun.sweeps import request, workers
from metarun.sweeps.course import Questions
from metarun.sweeps.sweep_directory import SweepDirectory

EPISODES = 12
INTERVAL = {"mean": 0.0, "ci95": 0.1}  # of a metric in a result; nobody looks at it here
RATE, INNER = "training.optimizer.learning_rate", "algorithm.inner_lr"
Formula = Callable[[config.RunConfig], float]


def write_base(folder: Path, text: str = SINGLE) -> Path:
    """Write the config that the settings begin from."""
    file = folder / "base.yaml"
    file.write_text(text)
    return file


def ask(folder: Path, *arguments: str, **options) -> request.Request:
    """Return what a sweep of the base config is asked for."""
    return request.read(write_base(folder), arguments, **options)


def open_sweep(folder: Path, asked: request.Request) -> SweepDirectory:
    """Open the directory of a sweep."""
    return SweepDirectory.open(folder / "sweep", asked)


# Every number may differ between the trials of one program, and any number of trials fits.
QUESTIONS = Questions(lambda setting: dict.fromkeys(setting), lambda run_config: run_config.replicas)


def find_rate(run_config: config.RunConfig) -> float:
    """Return the learning rate of the last stage."""
    return run_config.stages[-1].training.optimizer.config.learning_rate


def measure_distance(run_config: config.RunConfig) -> float:
    """Return a loss that is lowest at a learning rate of 0.01, and falls with the steps."""
    steps = run_config.stages[-1].training.steps
    return float((np.log10(find_rate(run_config)) + 2) ** 2 + 1 / steps + 0.01 * run_config.seed)


def finish_program(sweep: SweepDirectory, name: str, formula: Formula = measure_distance) -> None:
    """Write the result of a program, each trial with its own loss; NaN stands for one that has diverged."""
    run_config = config.load(sweep.find_program(name) / "config.yaml")
    trials = [config.make_trial_config(run_config, place) for place in range(run_config.replicas)]
    losses = np.array([formula(trial) for trial in trials])
    noise = np.random.default_rng(0).normal(0, 0.1, EPISODES)
    values = np.nan_to_num(losses)[:, None] + noise[None]
    stage = run_config.stages[-1].name
    with RunDirectory.open(sweep.find_run(name), False) as run:
        run.write_config(config.to_yaml(run_config))
        run.write_status("done")
        single = run_config.replicas == 1
        run.write_episodes(stage, "validation", {"inductive/adapted/loss": values[0] if single else values})
        result = {
            "modes": ["inductive"],
            "split": "validation",
            "higher_is_better": [],
            "episodes": {"count": EPISODES, "hash": "abc"},
            "stages": {stage: {"step": 7, "inductive": {"adapted": {"loss": INTERVAL}}}},
            "diverged": [{"trial": int(place), "stage": stage} for place in np.flatnonzero(np.isnan(losses))],
        } | ({} if single else {"seeds": [trial.seed for trial in trials]})
        run.write_result(result)


def make_trainer(trained: list[str], formula: Formula = measure_distance) -> Callable:
    """Make what stands for `workers.train`; it notes the programs that it has trained."""

    def train(sweep: SweepDirectory, listed: Sequence, *_) -> workers.Outcome:
        for program in listed:
            if sweep.find_state(program.name) == "waiting":
                finish_program(sweep, program.name, formula)
                trained.append(program.name)
        return workers.Outcome({}, 0)

    return train
