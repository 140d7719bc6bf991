"""What the stages of a config cost, counted in their traced programs, so that controls can cost as much."""

from typing import Any

from metarun import assembly, config, errors, experiment, hardware
from metarun.runs import stage_reference
from metarun.stages import Stage
from metarun.training import budgets, ledger


def count_flops(run_config: config.RunConfig) -> dict[str, tuple[float, float]]:
    """Return {stage: (FLOPs of its training, the same with those of what it stands on)}, of one replica.

    A stage stands on other stages, and on the weights of another run that it starts from, if their cost is recorded.

    Computes nothing. A stage whose end only seconds tell is an error.

    Raises:
      ConfigError: the config cannot be trained, or nobody knows the number of steps.
    """
    devices = hardware.select(run_config.accelerator)
    run_config = assembly.settle_task(run_config)
    tasks, stages, shapes = experiment.assemble(run_config, devices[0])
    counted: dict[str, tuple[float, float]] = {}
    standing: dict[str, dict[str, Any]] = {}
    for stage in stages:
        if stage.training.steps is None or stage.training.seconds is not None:
            what = "a budget in seconds has no number of steps, so its FLOPs are not known"
            raise errors.ConfigError(what, f"stage {stage.name}: training.seconds", "give steps or flops")
        own = stage.training.steps * budgets.count_step_flops(stage, shapes[stage.name], tasks)
        below = ledger.list_foundations(stage, shapes, tasks, standing)
        standing[stage.name] = {"stands_on": below}
        counted[stage.name] = own, own + find_start_flops(stage) + sum(counted[name][0] for name in below)
    return counted


def find_start_flops(stage: Stage) -> float:
    """Return the FLOPs that the weights had cost which a stage starts from by `init_from`; 0 if it is not known."""
    if stage.settings.init_from is None or stage.settings.taken_from is not None:
        return 0.0
    run, name, step = stage_reference.find_stage(stage.settings.init_from)
    return float((ledger.read_total(run, name, step) or {}).get("flops") or 0)
