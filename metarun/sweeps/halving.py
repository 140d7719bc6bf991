"""Successive halving: many settings train for few steps, and the best 1/K of them for K times as many.

Jamieson and Talwalkar 2016 (arXiv 1502.07943). Each rung trains from the start, with its own number of steps, so that a
schedule runs to its end on every rung. A survivor takes at most 1/(K − 1) of the configured steps more than if it had
gone on.
"""

import math
from typing import NamedTuple

from metarun import config


class RungSize(NamedTuple):
    """One rung of the ladder."""

    settings: int  # how many train on it
    divisor: int  # the steps of each stage are the configured ones divided by this


def list_rungs(count: int, factor: int | None) -> list[RungSize]:
    """Return the rungs for so many settings; the last one has all steps. Without a factor there is one rung."""
    if factor is None:
        return [RungSize(count, 1)]
    sizes = [count]
    while sizes[-1] >= factor:
        sizes.append(math.ceil(sizes[-1] / factor))
        if sizes[-1] == 1:
            break
    return [RungSize(size, factor ** (len(sizes) - 1 - level)) for level, size in enumerate(sizes)]


def scale_steps(run_config: config.RunConfig, divisor: int) -> list[str]:
    """Return the overrides that give each stage its share of every budget that it has; steps are rounded up."""
    if divisor == 1:
        return []
    single = "stages" not in config.document(run_config)
    return [
        f"{'' if single else f'stages.{index}.'}training.{key}={share}"
        for index, stage in enumerate(run_config.stages)
        for key, share in share_budgets(stage.training, divisor).items()
    ]


def share_budgets(training: config.Training, divisor: int) -> dict[str, float]:
    """Return a share of each budget that a training has: {"steps": 34}."""
    budgets = {"steps": training.steps, "seconds": training.seconds, "flops": training.flops}
    shares = {key: budget / divisor for key, budget in budgets.items() if budget is not None}
    return shares | ({"steps": math.ceil(shares["steps"])} if "steps" in shares else {})
