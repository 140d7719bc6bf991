"""What a sink is: it opens with facts about a run, takes points, and says when they have left this process."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from metarun.sinks import series


class Opening(NamedTuple):
    """What a sink opens with."""

    run: Path
    folder: Path | None  # where it shall write; None: its default
    facts: dict[str, Any]  # what it remembers of its last session; empty: none
    config: dict[str, Any]  # the resolved config as plain values

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.run.absolute().name

    @property
    def group(self) -> str:
        """The name of its config."""
        return self.run.absolute().parent.name or "metarun"


@runtime_checkable
class Sink(Protocol):
    """An open sink."""

    place: str  # where it writes, for people
    keeps_halves: bool  # whether a batch that was interrupted counts as arrived

    def send(self, points: list[series.Point], milliseconds: int) -> None:
        """Write points. `milliseconds` is the same number if a batch is sent again."""

    def flush(self) -> dict[str, Any]:
        """Return when the points have left this process, with the facts to open with next time."""

    def close(self, status: str) -> None:
        """End the session; `status` is that of the run."""
