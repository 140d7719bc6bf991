"""A sweep from where it is to its end: train what is left, rank the settings, measure the winner, write it all."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from metarun import config, errors
from metarun.figures import sweep_coordinates, sweep_importance
from metarun.runs import files
from metarun.sweeps import course, probe, ranking, winner, workers
from metarun.sweeps.course import Course, Questions
from metarun.sweeps.programs import Rung
from metarun.sweeps.request import Request
from metarun.sweeps.sweep_directory import RANKING, WINNER, SweepDirectory
from metarun.sweeps.workers import Report, Slot

logger = logging.getLogger("metarun")

HEAD = "# Setting {number} of a sweep of {file}, the best on its validation split.\n"  # of winner.yaml
COORDINATES, IMPORTANCE = "parallel-coordinates.png", "importance.png"


class Plan(NamedTuple):
    """How the programs of a sweep are trained."""

    questions: Questions
    jobs: int | None  # processes at once; None: one a device
    wait: bool  # for programs that other processes train
    report: Report
    planned: Callable[[Rung], None] = lambda rung: None  # is told of every rung before it trains


def run(sweep: SweepDirectory, request: Request, plan: Plan) -> dict[str, Any] | None:
    """Train what is left, and return the content of ranking.json; None: other processes train all that is left.

    Raises:
      DivergedError: every setting has diverged.
      MetarunError: a program has failed; the others are trained.
      Stopped: a signal asked for it; all states are saved.
    """
    slots: list[Slot] = []
    while True:
        with sweep.locked():
            followed = course.follow(sweep, request, plan.questions)
            if followed.rung is None:
                return conclude(sweep, request, followed)
        plan.planned(followed.rung)
        slots = slots or find_slots(request.base, plan.jobs)
        outcome = workers.train(sweep, followed.rung.programs, slots, plan.report, plan.wait)
        if outcome.failed:
            raise make_failure(sweep, followed.rung, outcome.failed)
        if outcome.elsewhere:
            return None


def find_slots(run_config: config.RunConfig, jobs: int | None) -> list[Slot]:
    """Return the places for processes: at most one a device, but any number on a CPU, whose cores they share."""
    devices = None if run_config.accelerator.platform == "cpu" else probe.find_devices(run_config)
    if devices is None or devices.platform == "cpu":
        return workers.make_slots(jobs or 1, None)
    names = workers.name_devices(devices.number)
    return workers.make_slots(min(jobs or len(names), len(names)), names)


def make_failure(sweep: SweepDirectory, rung: Rung, failed: dict[str, int]) -> errors.MetarunError:
    """Return the error about the programs that failed, with what the first of them said."""
    name = next(iter(failed))
    words = [line for line in workers.read_last_words(sweep, name) if line.strip()] or ["it said nothing"]
    said = next((line.partition(": ")[2] for line in words if line.startswith("error: ")), words[-1])
    return errors.MetarunError(
        f"{len(failed)} of {len(rung.programs)} programs failed; {name} with exit code {failed[name]}: {said}",
        str(sweep.find_program(name) / workers.LOG),
        "mend the cause, and call the same command again: it tries them again, and keeps the others",
    )


def conclude(sweep: SweepDirectory, request: Request, followed: Course) -> dict[str, Any]:
    """Rank the settings, measure the winner on the test split, and write all that comes out; ranking.json is the last.

    Raises:
      DivergedError: every setting has diverged.
    """
    if written := sweep.read(RANKING):
        return written
    ranked = ranking.rank(sweep, request, followed)
    best = ranked["ranking"][0]
    if best["state"] != "done":
        raise errors.DivergedError(
            "every setting that was trained to the end has diverged",
            str(sweep.path),
            "try lower rates, or set training.clip_norm",
        )
    winning = winner.make_config(request, best["setting"])
    sweep.write_text(
        WINNER, HEAD.format(file=request.file.name, number=best["number"]) + config.to_yaml(winning)
    )
    ranked["winner"] = {
        "number": best["number"],
        "setting": best["setting"],
        "config": WINNER,
        winner.SPLIT: winner.measure(sweep, request, best),
    }
    draw(sweep, request, ranked)
    sweep.write(RANKING, ranked)
    return ranked


def draw(sweep: SweepDirectory, request: Request, ranked: dict[str, Any]) -> None:
    """Draw what can be drawn: a failing picture must not cost the ranking."""
    if not request.axes:
        return
    count, seeds = len(ranked["ranking"]), len(request.seeds)
    title = f"{request.file.name}: {count} settings" + f" with {seeds} seeds each" * (seeds > 1)
    try:
        with files.storage_errors(sweep.path):
            sweep_coordinates.write_coordinates(sweep.path / COORDINATES, ranked, title)
            if ranked["importance"]["shares"]:
                sweep_importance.write_importance(sweep.path / IMPORTANCE, ranked, title)
    except errors.MetarunError:
        raise
    except Exception as error:
        logger.warning("no pictures: %s: %s", type(error).__name__, error)
        logger.debug("no pictures", exc_info=True)
