"""Stages that a control has in common with its method: it takes them from the method's run, and does not train them.

A stage depends on its own config, on the stages before it and on the seeds, and on nothing else. So the stages with
which both begin, as far as they are the same, end with the same weights to the last bit, and one training is enough.
"""

import dataclasses
import itertools
from pathlib import Path

from metarun import config
from metarun.runs import directory
from metarun.sweeps.controls import Plan, PlannedRun


def count_shared(plan: Plan, run: PlannedRun) -> int:
    """Return with how many stages of the method a control begins. The compared stage, its last one, is its own.

    There are none if the best checkpoint is measured: later stages stand on the last one, and a run that is done does
    not have to keep it.
    """
    if not run.against or run.config.evaluation.checkpoint == "best":
        return 0
    pairs = zip(run.config.stages[:-1], plan.method.config.stages, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def take_shared(plan: Plan, run: PlannedRun, method: Path) -> config.RunConfig:
    """Return the config of a control, with the stages that it shares taken from the finished run of the method."""
    count = count_shared(plan, run)
    settled = config.load(method / directory.CONFIG).stages[:count]
    taken = [
        stage
        if stage.taken_from is not None
        else dataclasses.replace(
            stage, draws_as=None, init_from=None, taken_from=str(method.resolve() / stage.name)
        )
        for stage in settled
    ]
    return dataclasses.replace(run.config, stages=(*taken, *run.config.stages[count:]))
