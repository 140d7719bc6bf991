"""The config of a run that goes on with a finished one for more steps: `metarun train --extend RUN training.steps=N`.

The longer run has to be the one that would have been trained at once, so nothing else may change that changes numbers,
and nothing may depend on the length. What the loss depends on is seen when the stage is built, in `metarun.training`.
"""

from collections.abc import Iterable
from pathlib import Path

from metarun import errors
from metarun.config import differences, run_file
from metarun.config.schedules import LENGTH_SCHEDULES
from metarun.config.schema import RunConfig, Stage

STEPS = "training.steps"


def load(file: Path, overrides: Iterable[str]) -> RunConfig:
    """Return the config of the longer run: that of the run, with more steps for its last stage.

    Args:
      file: the config of the run.
      overrides: of the steps, `training.steps=N` or `stages.NAME.training.steps=N`, and of what changes no number.

    Raises:
      ConfigError: something else changes, the steps do not grow, or something depends on their number.
    """
    before = run_file.load(file)
    last = before.stages[-1]
    single = "stages" not in run_file.document(before)
    key = STEPS if single else f"stages.{len(before.stages) - 1}.{STEPS}"
    refuse_other_ends(last, file)
    after = run_file.load(file, [complete(override, key) for override in overrides])
    changed = differences.list_changes(before, after)
    if others := [name for name in changed if name != key]:
        what = f"{', '.join(others)} cannot change when a run is extended"
        remedy = (
            f"change {STEPS} of the last stage, {last.name}, alone; or begin a new run with init_from: RUN"
        )
        raise errors.ConfigError(what, str(file), remedy)
    if after.stages[-1].training.last_step <= last.training.last_step:
        what = f"the stage {last.name} has {last.training.steps} steps, and is to have no more"
        written = STEPS if single else f"stages.{last.name}.{STEPS}"
        remedy = f"give more, such as {written}={2 * last.training.last_step}"
        raise errors.ConfigError(what, str(file), remedy)
    return after


def complete(override: str, key: str) -> str:
    """Return an override in which `training.steps` alone means the steps of the last stage."""
    return key + override.removeprefix(STEPS) if override.startswith(f"{STEPS}=") else override


def refuse_other_ends(stage: Stage, file: Path) -> None:
    """Refuse a stage that is not trained, or whose length is told or used by something beside its steps.

    Raises:
      ConfigError: names the key.
    """
    if stage.taken_from is not None:
        what = f"the last stage, {stage.name}, is taken from another run and is not trained"
        raise errors.ConfigError(what, str(file), f"extend {stage.taken_from}")
    training, begin_anew = stage.training, "begin a new run with init_from: RUN"
    for name in ("seconds", "flops"):
        if getattr(training, name) is not None:
            what = f"training.{name} of the stage {stage.name} says when its training ends"
            raise errors.ConfigError(what, str(file), begin_anew)
    schedule = training.optimizer.config.schedule.name
    if schedule in LENGTH_SCHEDULES:
        key = "training.optimizer.schedule"
        what = f"{key} of the stage {stage.name} is {schedule}, which depends on the number of steps"
        raise errors.ConfigError(what, str(file), begin_anew)
