"""How well a learner tells the examples of somebody's own support apart: whether its answers can be trusted.

Each example in its turn is left out: a learner adapts to the others, and classifies the one that it has not seen. If
no class has two examples, or the algorithm does not take a smaller support, the learner classifies what it has seen.
"""

from typing import Literal, NamedTuple

import numpy as np

from metarun import base, errors
from metarun.finished.prediction import AdaptedLearner, TrainedRun

LEFT_OUT = 24  # examples that are left out, one by one, spread evenly over the support


class SupportCheck(NamedTuple):
    """How many examples of a support were classified rightly."""

    method: Literal["leave-one-out", "seen"]  # whether the learner had not seen the example, or had
    right: int
    asked: int  # examples that were classified


def check_support(learner: AdaptedLearner, support: base.Examples) -> SupportCheck | None:
    """Classify the support itself. None: no classes are predicted.

    Args:
      learner: adapted to the whole support.
    """
    run = learner.run
    if run.targets != "classes":
        return None
    try:
        return leave_out(run, support) or classify_seen(learner, support)
    except errors.ConfigError:  # the algorithm takes no smaller support
        return classify_seen(learner, support)


def leave_out(run: TrainedRun, support: base.Examples) -> SupportCheck | None:
    """Classify examples by learners that have not seen them. None: no class has two examples."""
    places = choose_left_out(np.asarray(support.targets), LEFT_OUT)
    if not len(places):
        return None
    chosen = run.answer_left_out(support, places).argmax(axis=1)
    right = int((chosen == np.asarray(support.targets)[places]).sum())
    return SupportCheck("leave-one-out", right, len(places))


def choose_left_out(labels: np.ndarray, most: int) -> np.ndarray:
    """Return the places of at most `most` examples whose class has another example, spread evenly."""
    places = np.flatnonzero(np.bincount(labels)[labels] > 1)
    chosen = np.linspace(0, len(places) - 1, min(most, len(places)))
    return places[chosen.round().astype(int)]


def classify_seen(learner: AdaptedLearner, support: base.Examples) -> SupportCheck:
    """Classify the support by the learner that has adapted to it."""
    chosen = learner.predict(support.inputs).argmax(axis=1)
    return SupportCheck("seen", int((chosen == support.targets).sum()), len(chosen))
