"""What a run says while it goes on. The command line shows it; from Python nothing is said."""

from collections.abc import Mapping


class Progress:
    """Says nothing. Subclasses show what interests them."""

    def preparing(self, done: int, total: int, description: str) -> None:
        """Long work on data, such as decoding pictures: `done` of `total`; 0 when that is not known."""

    def run_opened(self, path: str, devices: str, resumed: bool) -> None:
        """The run directory is there and locked."""

    def stage_started(self, stage: str, step: int, steps: int, tasks_per_step: int) -> None:
        """A stage begins, or goes on after `step` of its `steps`."""

    def compiled(self, stage: str, seconds: float) -> None:
        """The stage's program is ready."""

    def advanced(
        self, stage: str, step: int, count: int, seconds: float, metrics: Mapping[str, float]
    ) -> None:
        """`count` more steps took `seconds`; `metrics` are their means."""

    def validated(self, stage: str, step: int, values: Mapping[str, float], best: bool) -> None:
        """The validation episodes were measured; `best`: better than ever before."""

    def stage_ended(self, stage: str) -> None:
        """The stage's last step is done and saved."""

    def measuring(self, stage: str, split: str, episodes: int) -> None:
        """The final evaluation of a stage begins."""
