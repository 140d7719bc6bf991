"""The learners that a comparison ranks: their values, episode by episode, and what they cost."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun.finished.costs import Cost, add_recorded, read_cost
from metarun.finished.finished_run import get_section, read_values
from metarun.finished.pairwise import Measured
from metarun.finished.run_names import name_runs
from metarun.finished.seeded_values import list_settings, take_seeds


class Candidate(NamedTuple):
    """One stage of one run, or one member of it, as it was measured."""

    label: str
    run: Path
    stage: str  # as its config names it
    values: dict[str, np.ndarray]  # {metric: [seed, episode]}
    episodes: dict[str, Any]  # split, count and hash
    cost: Cost
    seeds: tuple[int, ...] = ()  # one for each row of the values; empty: they are not known
    replicas: int = 1  # of the run; more than the rows of the values if the file has only their mean
    member: int | None = None  # of a stage with copies; None: the stage is one learner

    @property
    def name(self) -> str:
        """The stage as tables name it, with the number of the member: `members[2]`."""
        return self.stage if self.member is None else f"{self.stage}[{self.member}]"

    @property
    def rows(self) -> int:
        """How many seeds the values are of."""
        return len(next(iter(self.values.values()))) if self.values else 0

    def measure(self, metric: str) -> Measured:
        """Return the values of one metric with their seeds."""
        return Measured(self.values[metric], self.seeds)


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
        counted = {candidate.stage for candidate in own}
        candidates += own
        left_out += [f"{label}/{stage}" for stage in result["stages"] if stage not in counted]
    return candidates, left_out


def collect_run(
    path: Path, run_label: str, result: dict[str, Any], mode: str, learner: str
) -> list[Candidate]:
    """Return every stage of a run that has this measurement; with copies every member, with trials every setting."""
    stages, candidates, earlier = result["stages"], [], 0.0
    measured = [name for name, layout in stages.items() if get_section(layout, mode, learner) is not None]
    replicas, settings = len(result.get("seeds", [0])), list_settings(path, result)
    episodes = {"split": result["split"], **result["episodes"]}
    for name, layout in stages.items():
        label = f"{run_label}/{name}" if len(stages) > 1 else run_label
        members = len(layout.get("members", [0]))
        saved = read_cost(path, name, layout["step"], earlier, replicas * members)
        cost = add_recorded(saved, result.get("costs", {}).get(name), members)
        earlier += cost.seconds or 0.0
        if measured and name not in measured:
            continue
        values = read_values(path, result, name, mode, learner)
        order = get_section(layout, mode, learner) or {}
        metrics = {metric: values[metric] for metric in order if metric in values}
        so_far = list(stages)[: list(stages).index(name) + 1]
        for member, columns in split_members(metrics, layout):
            for setting in settings:
                rows, seeds = take_seeds(columns, setting, replicas, so_far)
                suffix = "" if member is None else f"[{member}]"
                whole = f"{label}{suffix} {setting.label}".rstrip()
                own = Candidate(whole, path, name, rows, episodes, cost, seeds, len(setting.places), member)
                candidates.append(own)
    return candidates


def split_members(
    columns: dict[str, np.ndarray], layout: dict[str, Any]
) -> list[tuple[int | None, dict[str, np.ndarray]]]:
    """Return (its number, its values) for every member of a stage; without copies one pair with None."""
    if "members" not in layout:
        return [(None, columns)]
    return [
        (member, {name: column[..., member, :] for name, column in columns.items()})
        for member in range(len(layout["members"]))
    ]
