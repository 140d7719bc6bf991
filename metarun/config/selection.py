"""A section `{name: maml, inner_steps: 1}`: the name picks a module, the rest is its Config."""

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Selection:
    """One choice among a kind, and its options."""

    name: str  # of the module (task, model, algorithm) or of the optax function (optimizer, schedule)
    config: Any  # instance of the chosen dataclass; for a module its twin (see `metarun.plugins`)


class Kind(NamedTuple):
    """Marks a Selection field with what it chooses among: `Annotated[Selection, Kind("model")]`."""

    name: str

    def __str__(self) -> str:
        return self.name
