"""Trials in programs: which trials train side by side in one run, and what keeps others apart.

A trial is one setting with one seed. Trials that differ in seeds and in numbers that a compiled program takes as
arguments are the replicas of one run. Which keys are such numbers is asked of `probe`; the others need a program for
each of their values.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from metarun import config
from metarun.config import Trials
from metarun.config.schema import TrialNumber
from metarun.sweeps import halving
from metarun.sweeps.request import Request, Setting


class Trial(NamedTuple):
    """One setting with one seed."""

    setting: int  # its place in the round
    seed: int


class Program(NamedTuple):
    """Trials that train in one run, side by side."""

    name: str  # <round>-<rung>-<number>, its folder
    trials: list[Trial]


class Rung(NamedTuple):
    """The programs that train some settings of a round for the same number of steps."""

    divisor: int  # the steps are the configured ones divided by this
    programs: list[Program]
    reasons: list[str]  # why these are several programs, a plain line each

    def list_settings(self) -> list[int]:
        """Return the settings that train on this rung, in their order."""
        return sorted({trial.setting for program in self.programs for trial in program.trials})


# Setting -> {key: why it cannot differ between the trials of one program; None: it can}
FindObstacles = Callable[[Setting], Mapping[str, str | None]]
NO_NUMBER = "it is no number"


class Divided(NamedTuple):
    """Trials in groups, and why there are several."""

    groups: list[list[Trial]]
    reasons: list[str]


def divide(
    settings: Mapping[int, Setting],
    seeds: Sequence[int],
    find_obstacles: FindObstacles,
    apart: str | None = None,
) -> Divided:
    """Divide trials into groups that may train side by side; the trials of a group keep their order.

    Args:
      settings: by their place in the round.
      apart: why no two trials may train side by side; None: they may.
    """
    trials = [Trial(place, seed) for place in settings for seed in seeds]
    if apart:
        return Divided([[trial] for trial in trials], [apart] * (len(trials) > 1))
    differing = list_differing(list(settings.values()))
    groups: dict[str, list[Trial]] = {}
    reasons: dict[str, str] = {}
    for trial in trials:
        own = find_reasons(settings[trial.setting], differing, find_obstacles)
        reasons |= own
        constants = {key: settings[trial.setting][key] for key in own}
        groups.setdefault(json.dumps(constants, sort_keys=True), []).append(trial)
    lines = [f"{key} cannot be an argument: {reason}" for key, reason in reasons.items()]
    return Divided(list(groups.values()), lines)


def find_reasons(setting: Setting, differing: Sequence[str], find_obstacles: FindObstacles) -> dict[str, str]:
    """Return why keys of a setting cannot be arguments of its program; those that can are left out."""
    reasons = {key: NO_NUMBER for key in differing if type(setting[key]) not in (int, float)}
    reasons |= {key: "a zero stays a constant" for key in differing if setting[key] == 0}
    rest = [key for key in differing if key not in reasons]
    obstacles = find_obstacles(setting) if rest else {}
    return reasons | {key: obstacle for key in rest if (obstacle := obstacles.get(key, NO_NUMBER))}


def list_differing(settings: Sequence[Setting]) -> list[str]:
    """Return the keys in which some settings differ."""
    first = settings[0]
    return [key for key in first if any(setting[key] != first[key] for setting in settings)]


def cut_group(group: list[Trial], limit: int) -> list[list[Trial]]:
    """Cut a group into pieces of the same size, but for one trial, with at most `limit` trials in each."""
    count = -(-len(group) // limit)
    bounds = [len(group) * place // count for place in range(count + 1)]
    return [group[start:end] for start, end in itertools.pairwise(bounds)]


def make_config(
    request: Request, settings: Mapping[int, Setting], trials: Sequence[Trial], divisor: int
) -> config.RunConfig:
    """Return the config of the run that trains these trials side by side, and measures them on the validation split.

    Raises:
      ConfigError: these settings are impossible with so few steps.
    """
    first = settings[trials[0].setting]
    shorter = halving.scale_steps(request.base, divisor)
    run_config = request.load(
        first, [*shorter, "evaluation.split=validation", f"seed={trials[0].seed}", "replicas=1"]
    )
    hosts = config.Hosts(count=1)  # a job of a cluster says otherwise in its environment
    accelerator = dataclasses.replace(run_config.accelerator, hosts=hosts)
    run_config = dataclasses.replace(run_config, accelerator=accelerator)
    if len(trials) == 1:
        return run_config
    differing = list_differing([settings[trial.setting] for trial in trials])
    numbers = [
        TrialNumber(key, tuple(float(settings[trial.setting][key]) for trial in trials)) for key in differing
    ]
    side_by_side = Trials(tuple(trial.seed for trial in trials), tuple(numbers))
    return config.settle_trials(dataclasses.replace(run_config, replicas=len(trials), trials=side_by_side))


def to_json(rung: Rung) -> dict[str, Any]:
    """Return a rung as a file holds it."""
    programs = [{"name": name, "trials": [list(trial) for trial in trials]} for name, trials in rung.programs]
    return {"divisor": rung.divisor, "programs": programs, "reasons": rung.reasons}


def from_json(content: Mapping[str, Any]) -> Rung:
    """Return a rung from what a file holds."""
    programs = [
        Program(program["name"], [Trial(*trial) for trial in program["trials"]])
        for program in content["programs"]
    ]
    return Rung(content["divisor"], programs, content["reasons"])
