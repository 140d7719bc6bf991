"""What the trials of a program reached on the frozen validation episodes, read from its run directory."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metarun import errors
from metarun.evaluation.statistics import choose_shown_metric
from metarun.finished.finished_run import read_result, read_values
from metarun.sweeps.programs import Rung, Trial
from metarun.sweeps.sweep_directory import SweepDirectory

SPLIT = "validation"


class Measure(NamedTuple):
    """What was measured, the same for all trials of a sweep."""

    metric: str
    higher_is_better: bool
    mode: str
    stage: str
    episodes: dict[str, Any]  # count and hash


class Score(NamedTuple):
    """What one setting reached on one rung."""

    values: np.ndarray | None  # [seed, episode]; None: a seed has diverged
    places: list[tuple[str, int]]  # (program, replica) of each seed
    diverged: list[int]  # the seeds that did

    @property
    def mean(self) -> float:
        """The mean over seeds and episodes; NaN if a seed has diverged."""
        return math.nan if self.values is None else float(self.values.mean(dtype=np.float64))


class Scores(NamedTuple):
    """What the settings of a rung reached."""

    measure: Measure | None  # None: all trials have diverged
    settings: dict[int, Score]  # by their place in the round


class Measured(NamedTuple):
    """What one program gave."""

    measure: Measure
    values: np.ndarray  # [trial, episode]; NaN where a trial has diverged


def read(sweep: SweepDirectory, rung: Rung, seeds: Sequence[int]) -> Scores:
    """Return what every setting of a rung reached; all its programs have ended.

    Raises:
      DataError: a program was measured on other episodes than the others, or its files are damaged.
    """
    measured = {
        program.name: read_program(sweep, program.name, len(program.trials))
        for program in rung.programs
        if sweep.find_state(program.name) == "done"
    }
    measures = {name: one.measure for name, one in measured.items()}
    refuse_other_episodes(sweep, measures)
    places = {
        trial: (program.name, place)
        for program in rung.programs
        for place, trial in enumerate(program.trials)
    }
    scores = {setting: score(setting, seeds, places, measured) for setting in rung.list_settings()}
    return Scores(next(iter(measures.values()), None), scores)


def read_program(sweep: SweepDirectory, program: str, trials: int) -> Measured:
    """Return the values of the last stage, by the metric that a comparison shows."""
    run = sweep.find_run(program)
    result = read_result(run)
    if result["split"] != SPLIT:
        what, remedy = (
            f"the program was measured on the {result['split']} split",
            "remove its run, and call again",
        )
        raise errors.DataError(what, str(run), remedy)
    stage, mode = list(result["stages"])[-1], result["modes"][0]
    values = read_values(run, result, stage, mode, "adapted")
    metric = choose_shown_metric(name for name in result["stages"][stage][mode]["adapted"] if name in values)
    column = values[metric].astype(np.float64)
    if "members" in result["stages"][stage]:
        column = column.mean(axis=-2)
    if trials == 1 and column.ndim == 1:
        column = column[None]
    for divergence in result.get("diverged", []):
        column[divergence["trial"]] = math.nan
    measure = Measure(metric, metric in result["higher_is_better"], mode, stage, result["episodes"])
    return Measured(measure, column)


def score(
    setting: int,
    seeds: Sequence[int],
    places: Mapping[Trial, tuple[str, int]],
    measured: Mapping[str, Measured],
) -> Score:
    """Return what one setting reached."""
    own = [places[Trial(setting, seed)] for seed in seeds]
    rows = [measured[program].values[place] if program in measured else None for program, place in own]
    diverged = [
        seed for seed, row in zip(seeds, rows, strict=True) if row is None or not np.isfinite(row).all()
    ]
    values = None if diverged else np.stack([row for row in rows if row is not None])
    return Score(values, own, diverged)


def refuse_other_episodes(sweep: SweepDirectory, measures: Mapping[str, Measure]) -> None:
    """Refuse to rank programs that answered different episodes."""
    first = next(iter(measures.values()), None)
    for program, measure in measures.items():
        if measure != first:
            raise errors.DataError(
                "two programs were measured differently: in other episodes, or by another metric",
                str(sweep.find_run(program)),
                "let no key differ that changes the validation episodes, or set evaluation.ways, shots and queries",
            )


def sort_settings(scores: Scores) -> list[int]:
    """Return the settings from best to worst; those that diverged come last. Equal ones keep their order."""

    def rank(setting: int) -> float:
        mean = scores.settings[setting].mean
        if math.isnan(mean):
            return math.inf
        return -mean if scores.measure and scores.measure.higher_is_better else mean

    return sorted(scores.settings, key=rank)
