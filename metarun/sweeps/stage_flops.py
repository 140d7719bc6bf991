"""What the stages of a config cost, counted in their traced programs, so that controls can cost as much."""

from typing import Any

from metarun import assembly, config, errors, experiment, hardware
from metarun.runs import stage_reference
from metarun.stages import Stage
from metarun.training import budgets, ledger, start_costs


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
    steps: dict[str, int] = {}
    starts = {stage.name: find_start(stage) for stage in stages}
    for stage in stages:
        if stage.training.steps is None or stage.training.seconds is not None:
            what = "a budget in seconds has no number of steps, so its FLOPs are not known"
            raise errors.ConfigError(what, f"stage {stage.name}: training.seconds", "give steps or flops")
        own = stage.training.steps * budgets.count_step_flops(stage, shapes[stage.name], tasks)
        below = ledger.list_foundations(stage, shapes, tasks, standing)
        standing[stage.name] = {"stands_on": below}
        counted[stage.name] = own, own
        steps[stage.name] = stage.training.steps
        owns = {name: {"steps": steps[name], "flops": counted[name][0]} for name in (stage.name, *below)}
        sections = start_costs.collect(owns, starts)
        counted[stage.name] = own, float(sum(section.get("flops") or 0 for section in sections))
    return counted


def find_start(stage: Stage) -> start_costs.Inherited:
    """Return what a stage has from another run; what is not known of it counts nothing."""
    settings = stage.settings
    name = settings.init_from or settings.taken_from
    if name is None:
        return start_costs.Inherited(None, {})
    try:
        run, there, step = stage_reference.find_stage(name)
    except errors.CheckpointError:  # the run is gone, and a stage that is taken from it is not trained
        if settings.taken_from is None:
            raise
        return start_costs.Inherited(settings.taken_from, {})
    if settings.taken_from is None:
        return start_costs.Inherited(None, start_costs.list_parts(run, there, step) or {})
    earlier = start_costs.read_inherited(stage_reference.read_records(run)).get(str(there))
    return start_costs.Inherited(start_costs.name_place(run, str(there)), earlier.parts if earlier else {})
