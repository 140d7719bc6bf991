"""Which replicas of a stage still train: all of them, unless they are trials and some have diverged.

A trial that diverges is frozen at its last finite state, while the others go on. It stays out of the later stages, too.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from metarun.stages import Divergence, Stage
from metarun.training.learner_log import format_trial
from metarun.training.trial_chunk import ALIVE

logger = logging.getLogger("metarun")


class Survivors:
    """The replicas of a stage that still train, and where the others diverged."""

    def __init__(self, stage: Stage, diverged: Mapping[int, Divergence]) -> None:
        """Begin with those that diverged in earlier stages, {replica: where}."""
        self.stage, self.diverged = stage, dict(diverged)

    @property
    def alive(self) -> np.ndarray:
        """Whether each learner still trains, bool [replica, member]."""
        alive = np.ones(tuple(self.stage.axes.values()), bool)
        if self.diverged:
            alive[list(self.diverged)] = False
        return alive

    @property
    def flags(self) -> list[bool]:
        """Whether each learner still trains, in the order of the stage's positions."""
        return self.alive.ravel().tolist()

    def list_own(self) -> tuple[tuple[int, int], ...]:
        """Return (replica, step) of those that diverged in this stage, as a checkpoint records them."""
        return tuple(
            (replica, where.step)
            for replica, where in self.diverged.items()
            if where.stage == self.stage.name
        )

    def restore(self, own: Sequence[Sequence[int]]) -> None:
        """Take up what `list_own` returned."""
        self.diverged |= {replica: Divergence(self.stage.name, step) for replica, step in own}

    def note_start(self, finite: Sequence[bool]) -> None:
        """Note which learners, in the order of the positions, begin with weights that are not finite."""
        pairs = zip(self.stage.positions, finite, strict=True)
        self._note({position["replica"]: 0 for position, flag in pairs if not flag})

    def note_steps(self, first: int, metrics: Mapping[str, np.ndarray], finite: np.ndarray) -> None:
        """Note who diverged in a chunk that began after `first` steps; see `loop.Chunk`."""
        taken = metrics[ALIVE].sum(axis=0)
        lost = ~finite & self.alive
        self._note({int(place[0]): first + int(taken[tuple(place)]) for place in np.argwhere(lost)})

    def _note(self, steps: Mapping[int, int]) -> None:
        for replica, step in steps.items():
            if replica not in self.diverged:
                self.diverged[replica] = Divergence(self.stage.name, step)
                trial = f"trial {replica} ({format_trial(self.stage, replica)})"
                logger.warning("%s diverged in stage %s, step %d", trial, self.stage.name, step)
