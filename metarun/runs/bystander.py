"""The run directory as all processes of a run but the first see it: they write nothing and lock nothing."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from metarun.runs.directory import RunDirectory
from metarun.runs.metrics import MetricsFile

if TYPE_CHECKING:
    from metarun.runs.checkpoints import Checkpoint, Checkpoints


class Bystander(RunDirectory):
    """A run directory that another process writes."""

    def __init__(self, path: Path) -> None:
        self.path, self.resumed = path, False
        self.log = None
        self.metrics = cast(MetricsFile, UnwrittenMetrics())

    def write_config(self, text: str) -> None:
        """Write nothing."""

    def write_environment(self, argv: list[str], devices: list[str]) -> None:
        """Write nothing."""

    def write_status(
        self, status: str, stage: str | None = None, step: int | None = None, message: str | None = None
    ) -> None:
        """Write nothing."""

    def renew_status(self, stage: str, step: int) -> None:
        """Write nothing."""

    def write_result(self, result: dict[str, Any]) -> None:
        """Write nothing."""

    def write_sources(self, records: dict[str, Any]) -> None:
        """Write nothing."""

    def write_episodes(self, stage: str, split: str, values: Mapping[str, Any]) -> None:
        """Write nothing."""

    def checkpoints(self, stage: str, keep: int) -> "Checkpoints":
        """Return checkpoints that are never saved or found."""
        return cast("Checkpoints", contextlib.nullcontext(UnwrittenCheckpoints()))

    def close(self) -> None:
        """Release nothing."""

    def _remove_unused(self) -> None:
        """Remove nothing."""


class UnwrittenMetrics:
    """A metrics.jsonl that another process writes."""

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write nothing."""

    def size(self) -> int:
        """Return 0."""
        return 0

    def sync(self) -> None:
        """Wait for nothing."""

    def digest(self) -> str:
        """Return nothing."""
        return ""

    def truncate(self, size: int) -> None:
        """Remove nothing."""


class UnwrittenCheckpoints:
    """Checkpoints that another process saves."""

    def save(self, *_: object) -> None:
        """Write nothing."""

    def wait(self) -> None:
        """Wait for nothing."""

    def clear(self) -> None:
        """Remove nothing."""

    def newest_valid(self) -> "Checkpoint | None":
        """Find nothing."""
        return None

    def best_valid(self) -> "Checkpoint | None":
        """Find nothing."""
        return None
