"""The section `controls`: runs that a method is compared with, to show what it owes to what."""

import re
from dataclasses import dataclass
from typing import Literal

METHOD = "method"  # the run that the controls are controls of
CONTROL_NAME = "[a-z][a-z0-9_-]{0,63}"


@dataclass(frozen=True)
class Control:
    """A run that shows what a method owes to one thing: the same config with some keys changed."""

    name: str  # of its run, unique: a letter, then letters, digits, _ and -, in lower case
    says: str  # what it takes away and what it keeps equal, in a few words
    changes: tuple[str, ...]  # each as an override writes it: training.steps=40000
    # The stage that is compared; those after it are not trained; null: the last one.
    stage: str | None = None
    against: tuple[
        str, ...
    ] = ()  # stages of the unchanged config that it is a control of; empty: the last one
    # When the compared stage ends: with its own budget, or when it and what it stands on have cost as many FLOPs as the
    # stage of the method and what that stands on, the costliest of several.
    budget: Literal["own", "method"] = "own"

    def __post_init__(self) -> None:
        if not re.fullmatch(CONTROL_NAME, self.name) or self.name == METHOD:
            raise ValueError(
                f"the control's name {self.name!r} cannot name its run",
                f"begin with a letter, then lower-case letters, digits, _ and -; {METHOD} is taken",
            )
        if not self.changes:
            raise ValueError(f"the control {self.name} changes nothing", "give changes: [KEY=VALUE]")
