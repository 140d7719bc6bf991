"""A section `{name: maml, inner_steps: 1}`: the name picks a module, the rest is its Config."""

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Selection:
    """One choice among a kind, and its options."""

    name: str  # the module (task, model, algorithm), the optax function (optimizer), or the schedule
    config: Any  # an instance of the chosen dataclass; for a module, of its twin (see `metarun.plugins`)


class Kind(NamedTuple):
    """The kind that a Selection field chooses among: `Annotated[Selection, Kind("model")]`."""

    name: str

    def __str__(self) -> str:
        return self.name
