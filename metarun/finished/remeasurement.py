"""Measuring a finished run again, one stage or one checkpoint of it: `metarun eval`."""

from typing import Any

from metarun import hardware
from metarun.evaluation import run_evaluation
from metarun.finished import ceiling
from metarun.finished.finished_run import FinishedRun
from metarun.finished.opened_run import describe_skipped, open_run
from metarun.progress import Progress


def measure(run: FinishedRun, progress: Progress) -> dict[str, Any]:
    """Measure all stages of a run on the frozen episodes, or the one that was named. Return what result.json has.

    "ceiling" beside it is what the best possible rule reaches, {metric: {"mean", "ci95"}}, if the task family knows it;
    "skipped" names the damaged checkpoints that older ones stand in for, if `run.allow_older` has let them.

    Raises:
      MetarunError: what is wrong with the run or with the settings, and what to do.
    """
    opened = open_run(run)
    trained = opened.trained if run.stage is None else {run.stage: opened.trained[run.stage]}
    evaluation = run_evaluation.evaluate(
        opened.stages, trained, opened.tasks, run.config.evaluation, progress
    )
    used = hardware.describe([opened.device])
    reached = ceiling.measure(opened, evaluation.result)
    whole = {"run": str(run.path), "accelerator": used} | evaluation.result | describe_skipped(opened.skipped)
    return whole if reached is None else whole | {"ceiling": reached}
