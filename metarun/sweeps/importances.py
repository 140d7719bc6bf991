"""How much each key of a sweep matters for the result.

On a grid, the share of a key is the variance of the means over all other keys, as a share of the variance of all
settings: the main effects of an analysis of variance. What the shares leave of 1 is due to keys acting together. For
settings that a search proposed, Optuna's fANOVA (Hutter, Hoos and Leyton-Brown 2014) says it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarun.config.schema import LAST_STEP
from metarun.sweeps import searches
from metarun.sweeps.course import Climbed
from metarun.sweeps.request import Request

FEWEST = 4  # settings from which fANOVA says anything


def measure(request: Request, settings: Sequence[Climbed], steps: int) -> dict[str, Any]:
    """Return {"method", "steps", "shares": {key: share}}; without a method the shares are empty, and "reason" says why.

    The steps are None if another budget ends the training.

    It is measured after the first rung, on which all settings have trained equally long. A last round that is smaller
    than the others may begin on a higher rung, and does not count.
    """
    divisor = max((find_first_divisor(request, entry) for entry in settings), default=1)
    settings = [entry for entry in settings if find_first_divisor(request, entry) == divisor]
    firsts = [entry.scores[0] for entry in settings]
    values = np.array([math.nan if score.diverged else score.mean for score in firsts])
    finite = np.isfinite(values)
    head = {"steps": None if steps == LAST_STEP else -(-steps // divisor)}
    if not request.axes or finite.sum() < 2 or float(np.ptp(values[finite])) == 0.0:
        reason = "fewer than two settings differ in their results"
        return {"method": None, **head, "shares": {}, "reason": reason}
    if request.search == "grid":
        if not finite.all():
            reason = "some settings of the grid have diverged"
            return {"method": None, **head, "shares": {}, "reason": reason}
        return {"method": "variance of a grid", **head, "shares": share_variance(request, settings, values)}
    if finite.sum() < FEWEST:
        return {"method": None, **head, "shares": {}, "reason": f"fewer than {FEWEST} settings are finite"}
    kept = [entry.setting for entry, is_finite in zip(settings, finite, strict=True) if is_finite]
    return {"method": "fANOVA", **head, "shares": analyse(request, kept, values[finite])}


def find_first_divisor(request: Request, entry: Climbed) -> int:
    """Return the divisor of the first rung that a setting trained on."""
    return entry.divisor * (request.halve or 1) ** (len(entry.scores) - 1)


def share_variance(request: Request, settings: Sequence[Climbed], values: np.ndarray) -> dict[str, float]:
    """Return the share of the variance that each key explains by itself."""
    total = float(np.var(values))
    shares: dict[str, float] = {}
    for axis in request.axes:
        means = [
            np.mean(
                [
                    value
                    for entry, value in zip(settings, values, strict=True)
                    if entry.setting[axis.key] == level
                ]
            )
            for level in axis.values
        ]
        shares[axis.key] = float(np.var(means)) / total
    return shares


def analyse(request: Request, settings: Sequence[Mapping[str, Any]], values: np.ndarray) -> dict[str, float]:
    """Return Optuna's importance of each key, by fANOVA."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {axis.key: searches.make_distribution(axis) for axis in request.axes}
    study = optuna.create_study()
    for setting, value in zip(settings, values, strict=True):
        parameters = {axis.key: searches.spell_value(axis, setting[axis.key]) for axis in request.axes}
        study.add_trial(
            optuna.trial.create_trial(params=parameters, distributions=distributions, value=float(value))
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {axis.key: float(found.get(axis.key, 0.0)) for axis in request.axes}
