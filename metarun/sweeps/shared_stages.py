"""Stages that a control has in common with its method: it takes them from the method's run, and does not train them.

A stage that ends by steps or FLOPs depends on its own config, on the stages before it and on the seeds, and on nothing
else. So the stages with which both begin, as far as they are the same, end with the same weights to the last bit, and
one training is enough. One that ends by seconds is the method's own, which a second training would not be.
"""

import dataclasses
import itertools
from pathlib import Path

from metarun import config, errors
from metarun.runs import checkpoints, code_copies, directory
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


def take_shared(plan: Plan, run: PlannedRun, method: Path) -> config.RunConfig | None:
    """Return the config of a control, with the stages that it shares taken from the run of the method.

    None: the method has no result, or the checkpoints of these stages are damaged or gone.
    """
    count = count_shared(plan, run)
    names = [stage.name for stage in run.config.stages[:count]]
    if not (method / directory.RESULT).exists() or not can_be_taken(method, names):
        return None
    settled = config.load(method / directory.CONFIG).stages[:count]
    taken = [
        dataclasses.replace(
            stage, draws_as=None, init_from=None, taken_from=str(method.resolve() / stage.name)
        )
        for stage in settled
    ]
    own = [name_root(stage, run.config) for stage in run.config.stages[count:]]
    return dataclasses.replace(run.config, stages=(*taken, *own))


def can_be_taken(method: Path, stages: list[str]) -> bool:
    """Return whether the run has readable checkpoints of the stages, and was trained with the code that is here."""
    try:
        code_copies.check(method)
        for stage in stages:
            checkpoints.open_evaluated(method, stage, "last")
    except errors.MetarunError:
        return False
    return True


def name_root(stage: config.Stage, run_config: config.RunConfig) -> config.Stage:
    """Return a stage that draws as the stage at the end of its chain, which a stage between them no longer says."""
    drawn = {other.name: other.draws_as for other in run_config.stages}
    root = stage.draws_as
    while root is not None and drawn[root] is not None:
        root = drawn[root]
    return dataclasses.replace(stage, draws_as=root)
