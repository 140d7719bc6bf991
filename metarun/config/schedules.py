"""Learning-rate schedules: what the YAML may say. The training makes optax schedules of them.

Each is a factor on the optimizer's `learning_rate` as a function of `step` (from 0); `steps` is the
length of the stage's training.
"""

from dataclasses import dataclass
from typing import Annotated

from metarun.ranges import Above, AtLeast, AtMost, Between

LAST_STEP = 10**9  # of a training that no number of steps ends; its program counts steps in 32 bits
Steps = Annotated[int, AtLeast(1), AtMost(LAST_STEP)]
Fraction = Annotated[float, Above(0), AtMost(1)]


@dataclass(frozen=True)
class Constant:
    """factor = 1."""


@dataclass(frozen=True)
class Cosine:
    """A linear rise from 0 over `warmup_steps`, then half a cosine from 1 down to `final` at `steps`."""

    final: Annotated[float, Between(0, 1)] = 0.0  # factor at the last step
    warmup_steps: Annotated[int, Between(0, LAST_STEP)] = 0  # steps, fewer than the training has


@dataclass(frozen=True)
class Linear:
    """A straight line from 1 at step 0 to `final` at `steps`."""

    final: Annotated[float, Between(0, 1)] = 0.0  # factor at the last step


@dataclass(frozen=True)
class Exponential:
    """factor = decay ** (step / every), smoothly."""

    decay: Fraction  # factor per `every` steps
    every: Steps  # steps after which the factor is `decay`


@dataclass(frozen=True)
class Step:
    """factor ** floor(step / every), a staircase."""

    factor: Fraction  # factor from one stair to the next
    every: Steps  # steps on one stair


LENGTH_SCHEDULES = ("cosine", "linear")  # whose rates depend on the length of the training

SCHEDULES: dict[str, type] = {
    "constant": Constant,
    "cosine": Cosine,
    "exponential": Exponential,
    "linear": Linear,
    "step": Step,
}
