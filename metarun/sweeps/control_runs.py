"""The runs of a method and its controls: trained by the workers of sweeps, and compared by pairs.

controls.json      what is trained here      comparison.json   what came out
NAME/              the run directory of the method or of a control
programs/NAME/     config.yaml   log.txt   lock
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarun import config, errors
from metarun.config import random_weights
from metarun.finished import comparison
from metarun.finished.comparison import Choice
from metarun.runs import directory, removal
from metarun.sweeps import execution, shared_stages, workers
from metarun.sweeps.controls import Plan, PlannedRun
from metarun.sweeps.course import CONFIG
from metarun.sweeps.programs import Program, Rung
from metarun.sweeps.sweep_directory import SweepDirectory
from metarun.sweeps.workers import Report, Slot

DESCRIPTION, COMPARISON = "controls.json", "comparison.json"
OTHERS = (
    "there are other controls here: their config or their seeds differ",
    "the folder is not empty and holds no controls",
)
REMEDY = "choose another --controls-dir"
EMBEDDING = "task_embedding"  # the algorithm whose vectors are judged by their neighbours, beside its answers
RAW_SUPPORT = "raw support"  # its name among the controls in the lines of neighbours


class ControlDirectory(SweepDirectory):
    """Where the runs of a method and its controls lie, each under its own name."""

    def find_run(self, program: str) -> Path:
        """Return the run directory of the method or of a control."""
        return self.path / program


def open_directory(path: Path, plan: Plan) -> ControlDirectory:
    """Make the directory, or take up the one that is there, and write the config of every run.

    Raises:
      RunDirectoryError: something else is there.
    """
    folder = ControlDirectory.take_up(path, DESCRIPTION, plan.describe(), OTHERS, REMEDY)
    for run in plan.untrained:
        place = folder.find_program(run.name)
        if not (place / CONFIG).exists():
            folder.write_text(f"programs/{run.name}/{CONFIG}", config.to_yaml(run.config))
    return folder


def train(folder: ControlDirectory, plan: Plan, jobs: int | None, report: Report) -> None:
    """Train the runs that have no result yet; those that were stopped go on.

    Controls that begin with stages of the method come after it and the others, and take them from it.

    Raises:
      MetarunError: a run has failed; the others are trained.
      Stopped: a signal asked for it; all states are saved.
    """
    sharing = [run for run in plan.controls if shared_stages.count_shared(plan, run)]
    first = [run for run in plan.untrained if run not in sharing]
    programs = [Program(run.name, []) for run in plan.untrained]
    if all(folder.find_state(program.name) != "waiting" for program in programs):
        return
    slots = execution.find_slots(plan.method.config, jobs)
    failed = train_together(folder, first, slots, report)
    share(folder, plan, sharing)
    failed |= train_together(folder, sharing, slots, report)
    if failed:
        raise execution.make_failure(folder, Rung(1, programs, []), failed)


def train_together(
    folder: ControlDirectory, runs: Sequence[PlannedRun], slots: Sequence[Slot], report: Report
) -> dict[str, int]:
    """Train runs that need nothing of each other; return the exit codes of those that have failed."""
    return workers.train(folder, [Program(run.name, []) for run in runs], slots, report, wait=True).failed


def share(folder: ControlDirectory, plan: Plan, sharing: Sequence[PlannedRun]) -> None:
    """Let controls that have saved nothing yet take the stages of the method, if it is done; else they train their own.

    What another process trains at this moment is left alone.
    """
    method = find_run(folder, plan, plan.method)
    for run in sharing:
        shared = shared_stages.take_shared(plan, run, method)
        claim = folder.claim(run.name)
        if claim is None:
            continue
        try:
            if shared is not None and has_nothing(folder, run):
                path = folder.find_run(run.name)
                if (path / directory.CONFIG).exists():  # its config may name a method that lay elsewhere
                    removal.remove(path, folder.path)
                folder.write_text(f"programs/{run.name}/{CONFIG}", config.to_yaml(shared))
        finally:
            os.close(claim)


def has_nothing(folder: ControlDirectory, run: PlannedRun) -> bool:
    """Return whether a run has still to be trained, and has no checkpoint to go on from."""
    saved = (folder.find_run(run.name) / directory.CHECKPOINTS).glob("*/*")
    return folder.find_state(run.name) == "waiting" and not any(saved)


def find_run(folder: ControlDirectory, plan: Plan, run: PlannedRun) -> Path:
    """Return where a run lies."""
    if not run.against and plan.trained:
        return plan.trained
    return folder.find_run(run.name)


def compare(folder: ControlDirectory, plan: Plan, mode: str | None, metric: str | None) -> dict[str, Any]:
    """Compare the method with each control by pairs, ready for JSON, and write it to comparison.json.

    Returns:
      {"metric", "higher_is_better", "mode", "episodes", "ceiling", "seeds", "runs": [{"name", "says", "stage", "mean",
      "ci95", "cost", …}], "differences": [{"of", "minus", "control", "mean", "ci95", "p", "p_holm", "differ",
      "ahead"}], "diverged": [name], "notes", "neighbours"}. A line of "runs" is one of the ranking of
      `comparison.compare`, and so is a line of "differences", method minus control, with the p-values corrected for
      these differences alone.
      "ahead" is "method", "control" or None: they cannot be told apart. "neighbours" is of `compare_neighbours`.
      "notes" says which learners stand on random weights.

    Raises:
      DivergedError: the method or every control has diverged.
      UsageError: the mode or the metric was not measured.
    """
    diverged = [run.name for run in plan.untrained if folder.find_state(run.name) == "diverged"]
    if plan.method.name in diverged or len(diverged) == len(plan.controls):
        what = "the method has diverged" if plan.method.name in diverged else "every control has diverged"
        remedy = "try lower rates, or set training.clip_norm"
        raise errors.DivergedError(what, str(folder.path), remedy)
    controls = [run for run in plan.controls if run.name not in diverged]
    paths = {run.name: find_run(folder, plan, run) for run in (plan.method, *controls)}
    compared = comparison.compare(list(paths.values()), Choice(mode, metric=metric))
    lines = {(line["run"], line["stage"]): line for line in compared["ranking"]}
    method, higher = str(paths[plan.method.name]), compared["higher_is_better"]
    described, differences = [], []
    for stage in dict.fromkeys(stage for run in controls for stage in run.against):
        described.append({"name": plan.method.name, "says": plan.method.says, **lines[method, stage]})
    for run in controls:
        line = lines[str(paths[run.name]), run.stage]
        described.append({"name": run.name, "says": run.says, **line})
        for stage in run.against:
            label = lines[method, stage]["label"]
            differences.append({"control": run.name} | find_difference(compared, label, line["label"]))
    judged = [name_leader(line, higher) for line in comparison.judge_together(differences)]
    shared = {key: compared[key] for key in ("metric", "higher_is_better", "mode", "episodes", "ceiling")}
    seeds = plan.method.config.replicas
    whole = shared | {"seeds": seeds, "runs": described, "differences": judged, "diverged": diverged}
    whole["notes"] = [note for note in compared["notes"] if note.startswith(random_weights.SAID)]
    whole["neighbours"] = compare_neighbours(plan, controls, paths)
    folder.write(COMPARISON, whole)
    return whole


def compare_neighbours(
    plan: Plan, controls: list[PlannedRun], paths: dict[str, Path]
) -> list[dict[str, Any]]:
    """Compare how often the nearest task shares a fact, for every stage that embeds tasks and its controls that do.

    The raw support, which nothing is trained for, is a control of each such stage.

    Returns:
      lines of `neighbours.subtract`, with "control", "of", and what `compare` adds to a difference.
    """
    kinds = {stage.name: stage.algorithm.name for stage in plan.method.config.stages}
    pairs = [
        (run, stage)
        for run in controls
        for stage in run.against
        if kinds[stage] == run.config.stages[-1].algorithm.name == EMBEDDING
    ]
    if not pairs:
        return []
    from metarun.finished import neighbours

    found = {
        (name, stage): neighbours.find_neighbours(paths[name], stage)
        for run, against in pairs
        for name, stage in ((plan.method.name, against), (run.name, run.stage))
    }
    lines = [
        {"control": run.name, "of": stage} | line
        for run, stage in pairs
        for line in neighbours.subtract(
            found[plan.method.name, stage].facts, found[run.name, run.stage].facts
        )
    ]
    for stage in dict.fromkeys(stage for _, stage in pairs):
        own = found[plan.method.name, stage]
        lines += [
            {"control": RAW_SUPPORT, "of": stage} | line for line in neighbours.subtract(own.facts, own.raw)
        ]
    return [name_leader(line, higher_is_better=True) for line in comparison.judge_together(lines)]


def find_difference(compared: dict[str, Any], of: str, minus: str) -> dict[str, Any]:
    """Return the line of the difference of two learners, turned so that it is `of` minus `minus`."""
    for line in compared["differences"]:
        if (line["of"], line["minus"]) == (of, minus):
            return dict(line)
        if (line["of"], line["minus"]) == (minus, of):
            return line | {"of": of, "minus": minus, "mean": -line["mean"]}
    raise AssertionError(f"all pairs are compared, and {of} with {minus} is not")


def name_leader(difference: dict[str, Any], higher_is_better: bool) -> dict[str, Any]:
    """Add which of method and control is ahead; None: they cannot be told apart."""
    method_is_ahead = (difference["mean"] > 0) == higher_is_better
    ahead = ("method" if method_is_ahead else "control") if difference["differ"] else None
    return difference | {"ahead": ahead}
