"""A stage of a run with its weights, its task family and the frozen data, ready to be looked at. Writes nothing."""

from pathlib import Path
from typing import NamedTuple

from metarun import assessment, base, building, config, differences, errors, parallel, population
from metarun.base import PyTree
from metarun.runs import directory


class Opened(NamedTuple):
    """One stage as it is evaluated."""

    path: Path  # the run directory
    stage: str
    step: int
    weights: base.Weights  # of one learner: of its first replica and member, where there are several
    algorithm: base.Algorithm
    family: base.TaskFamily  # as it is evaluated
    data: PyTree  # of the split that is evaluated, on the device
    evaluation: config.Evaluation
    mode: str


def open_stage(
    path: Path,
    *,
    stage: str | None = None,
    split: str | None = None,
    mode: str | None = None,
    overrides: list[str] | tuple[str, ...] = (),
) -> Opened:
    """A stage of a run, or of one checkpoint of it.

    Args:
      path: a run directory, or RUN/checkpoints/<stage>/<step>.
      stage: None: the last one, or that of the checkpoint.
      split: None: the one that the run evaluates.
      mode: "inductive" or "transductive"; None: the first one that the run evaluates.
      overrides: `key=value` of the evaluation and accelerator sections.

    Raises:
      MetarunError: what is wrong with the run or with the choice, and what to do.
    """
    root, asked = assessment.split_path(path)
    directory.read_config(root)
    chosen = [*overrides, *([f"evaluation.split={split}"] if split else [])]
    chosen += [f"evaluation.modes=[{mode}]"] if mode else []
    run_config = config.load(root / directory.CONFIG, chosen)
    differences.refuse_other_changes(config.load(root / directory.CONFIG), run_config)
    index = assessment.stage_index(run_config, root, asked, stage)
    wanted, name = run_config.evaluation, run_config.stages[index].name
    device = parallel.select(run_config.accelerator)[0]
    problem = assessment.prepare(run_config, device)
    if wanted.split not in problem.judge.data:
        what = f"the task family has no {wanted.split} split"
        raise errors.UsageError(what, "the split", f"use one of {', '.join(problem.judge.data)}")
    trained = assessment.restore_stages(run_config, root, asked, problem, device, index + 1)[name]
    weights = population.take(trained.weights, population.positions(run_config, index)[0])
    family, chosen_mode = problem.judge.family, wanted.modes[0]
    steps = building.adapted_steps(run_config, index)
    algorithm = building.algorithm(run_config, index, problem.family, chosen_mode, steps, family.objective)
    data = problem.judge.data[wanted.split]
    return Opened(root, name, trained.step, weights, algorithm, family, data, wanted, chosen_mode)
