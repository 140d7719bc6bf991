"""The validation of a stage: the frozen episodes of the validation split, measured with the weights of the moment."""

import math
from collections.abc import Callable
from typing import Any

import jax

from metarun import base
from metarun.evaluation import episodes, statistics, variants
from metarun.evaluation.measurement import make_measurement
from metarun.numbers import Numbers
from metarun.stages import Stage
from metarun.training.session import Session

Metrics = dict[str, float]


def make_validation(stage: Stage, session: Session) -> Callable[[base.Weights], list[Metrics]] | None:
    """Make weights -> the metrics of each learner on the validation split; None: nothing is to be validated.

    It raises Stopped if a signal comes before it has measured them.
    """
    tasks, settings = session.tasks, session.evaluation
    if settings.every is None or "validation" not in tasks.data:
        return None

    def choose(values: Numbers) -> dict[str, variants.Variant]:
        return variants.choose_variants(
            stage.take_numbers(values), tasks.evaluated.problem, settings.modes[:1]
        )

    frozen = episodes.freeze(tasks, settings, "validation")
    measure = make_measurement(
        choose({}),
        frozen,
        stage.at_once,
        len(stage.axes),
        stage.list_numbers(),
        choose,
        stage.differing,
        session.processes.check_signal,
    )

    def validate(weights: base.Weights) -> list[Metrics]:
        values = measure(jax.device_put(weights, session.device))
        learners = [statistics.select_learner(values, position) for position in stage.positions]
        return [flatten_summary(statistics.summarise(learner), settings.modes[0]) for learner in learners]

    return validate


def flatten_summary(summary: dict[str, Any], mode: str) -> Metrics:
    """Return what a line of metrics.jsonl says about a validation."""
    adapted, unadapted = summary[f"{mode}/adapted"], summary.get(f"{mode}/unadapted", {})
    metrics = {name: interval["mean"] for name, interval in adapted.items()}
    metrics |= {f"{name}_ci95": interval["ci95"] for name, interval in adapted.items()}
    return metrics | {f"unadapted_{name}": interval["mean"] for name, interval in unadapted.items()}


def is_better(objective: base.Objective, value: float, best: float | None) -> bool:
    """Return whether a value of the selecting metric is better than the best so far; None: there is none."""
    if math.isnan(value) or best is None:
        return not math.isnan(value)
    return value > best if objective.selection in objective.higher_is_better else value < best
