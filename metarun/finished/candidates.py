"""The learners that a comparison ranks: their values, episode by episode, and what they cost."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun import errors
from metarun.finished.finished_run import read_values
from metarun.finished.run_names import name_runs
from metarun.runs import manifest


class Cost(NamedTuple):
    """What a stage took, from its checkpoint; None: the checkpoint is gone."""

    steps: int | None  # outer steps
    seconds: float | None  # of training, without compiling and measuring
    earlier_seconds: float | None  # of the stages before it, on which it may build
    parameters: int | None  # numbers that are trained, of one learner
    state_bytes: int | None  # of weights and optimizer, in memory and in a checkpoint


class Candidate(NamedTuple):
    """One stage of one run, or one member of it, as it was measured."""

    label: str
    run: Path
    stage: str
    values: dict[str, np.ndarray]  # {metric: [episode]}, the mean over replicas
    episodes: dict[str, Any]  # split, count and hash
    cost: Cost
    seeds: dict[str, np.ndarray] | None = None  # {metric: [replica]}, the mean of each; None: there is one


def collect_candidates(
    results: dict[Path, dict[str, Any]], mode: str, learner: str
) -> tuple[list[Candidate], list[str]]:
    """Return the candidates of all runs, and the labels of the stages that were left out.

    Args:
      results: {run: the content of its result.json}.
    """
    candidates: list[Candidate] = []
    left_out: list[str] = []
    for label, (path, result) in zip(name_runs(list(results)), results.items(), strict=True):
        own = collect_run(path, label, result, mode, learner)
        counted = {candidate.stage.partition("[")[0] for candidate in own}
        candidates += own
        left_out += [f"{label}/{stage}" for stage in result["stages"] if stage not in counted]
    return candidates, left_out


def collect_run(
    path: Path, run_label: str, result: dict[str, Any], mode: str, learner: str
) -> list[Candidate]:
    """Return every stage of a run that has this measurement; for a stage with copies every member."""
    stages, candidates, earlier = result["stages"], [], 0.0
    measured = [name for name, layout in stages.items() if get_section(layout, mode, learner) is not None]
    replicas = len(result.get("seeds", [0]))
    episodes = {"split": result["split"], **result["episodes"]}
    for name, layout in stages.items():
        label = f"{run_label}/{name}" if len(stages) > 1 else run_label
        learners = replicas * len(layout.get("members", [0]))
        cost = read_cost(path, name, layout["step"], earlier, learners)
        earlier += cost.seconds or 0.0
        if measured and name not in measured:
            continue
        values = read_values(path, name, result["split"], f"{mode}/{learner}")
        order = get_section(layout, mode, learner) or {}
        metrics = {metric: values[metric] for metric in order if metric in values}
        for suffix, columns in split_members(metrics, layout):
            candidate = Candidate(label + suffix, path, name + suffix, columns, episodes, cost)
            candidates.append(candidate if replicas == 1 else average_replicas(candidate))
    return candidates


def get_section(layout: dict[str, Any], mode: str, learner: str) -> dict[str, Any] | None:
    """Return the means of one learner in one mode, in the family's order of metrics; None: it was not measured."""
    section = layout.get(mode, {})
    return (section.get("inner_steps", {}) if learner.isdecimal() else section).get(learner)


def split_members(
    columns: dict[str, np.ndarray], layout: dict[str, Any]
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Return (`[0]`, its values) for every member of a stage; without copies one pair with an empty name."""
    if "members" not in layout:
        return [("", columns)]
    return [
        (f"[{member}]", {name: column[..., member, :] for name, column in columns.items()})
        for member in range(len(layout["members"]))
    ]


def average_replicas(candidate: Candidate) -> Candidate:
    """Return the mean over the replicas, from values [replica, episode]."""
    means = {name: column.mean(axis=0, dtype=np.float64) for name, column in candidate.values.items()}
    seeds = {name: column.mean(axis=1, dtype=np.float64) for name, column in candidate.values.items()}
    return candidate._replace(values=means, seeds=seeds)


def read_cost(path: Path, stage: str, step: int, earlier_seconds: float, learners: int) -> Cost:
    """Read what the stage took, all its learners together, from the manifest of the measured checkpoint."""
    try:
        saved = manifest.read(path / "checkpoints" / stage / str(step))
    except errors.CheckpointError:
        return Cost(step, None, None, None, None)
    numbers = {name: math.prod(leaf.shape) for name, leaf in saved.leaves.items()}
    width = {name: np.dtype(leaf.dtype).itemsize for name, leaf in saved.leaves.items()}
    trained = sum(count for name, count in numbers.items() if name.startswith("weights.trained"))
    state_bytes = sum(numbers[name] * width[name] for name in numbers)
    return Cost(step, saved.facts.get("seconds"), earlier_seconds, trained // learners, state_bytes)
