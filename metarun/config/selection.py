"""A section `{name: maml, inner_steps: 1}`: the name picks a module, the rest is its Config."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from metarun import outside


@dataclass(frozen=True)
class Selection:
    """One choice among a kind, and its options."""

    # The module (task, model, algorithm), the optax function (optimizer), or the schedule. A file has its whole path.
    name: str
    config: Any  # an instance of the chosen dataclass; for a module, of its twin (see `metarun.plugins`)

    @property
    def label(self) -> str:
        """The short name: `learner` for the file learner.py and for my_package.learner."""
        return outside.make_label(self.name)


class Kind(NamedTuple):
    """The kind that a Selection field chooses among: `Annotated[Selection, Kind("model")]`."""

    name: str

    def __str__(self) -> str:
        return self.name
