"""The events that a run reports while it goes on. The command line shows them; from Python nothing is shown."""

from collections.abc import Mapping


class Progress:
    """The events, each of which does nothing. A subclass overrides those that it shows."""

    def preparing(self, done: int, total: int, description: str) -> None:
        """Work on data, such as decoding pictures, has come to `done` of `total`, which is 0 if it is not known."""

    def run_opened(self, path: str, devices: str, resumed: bool) -> None:
        """The run directory exists and is locked."""

    def stage_started(self, stage: str, step: int, steps: int, tasks_per_step: int) -> None:
        """A stage begins, or goes on after `step` of its `steps`."""

    def timed(self, stage: str, done: float, seconds: float) -> None:
        """The stage, which has begun, ends after `seconds` of training at the latest; `done` of them are over."""

    def compiled(self, stage: str, seconds: float) -> None:
        """The program of the stage is compiled."""

    def advanced(
        self, stage: str, step: int, count: int, seconds: float, metrics: Mapping[str, float]
    ) -> None:
        """`count` more steps took `seconds`. `metrics` are the means over these steps."""

    def validated(self, stage: str, step: int, values: Mapping[str, float], best: bool) -> None:
        """The validation episodes were measured. `best` says whether they are better than ever before."""

    def stage_ended(self, stage: str) -> None:
        """The last step of the stage is done and saved."""

    def measuring(self, stage: str, split: str, episodes: int) -> None:
        """The final evaluation of a stage begins."""
