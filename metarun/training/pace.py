"""How many steps the next chunk has."""

from metarun.training.loop import CAPACITY

CHUNK_SECONDS = 1.0  # how long a chunk should last: long beside a call, short beside a wait for Ctrl-C


class Pace:
    """Chooses how many steps the next chunk has: as many as last about CHUNK_SECONDS, or a fixed number."""

    def __init__(self, fixed: int | None) -> None:
        self.fixed = fixed
        self.steps = fixed or 1
        self.step_seconds = 0.0  # of the last chunk; 0: there was none

    def next(self, step: int, ends: list[int], seconds_left: float | None = None) -> int:
        """Return the number of steps from `step` to the end of the chunk, which reaches beyond none of `ends`.

        Args:
          seconds_left: of the training. A chunk of a length that is not fixed has as many steps as fit into them, but
            at least one. None: any number.
        """
        nearest = min(end for end in ends if end > step)
        count = min(self.steps, nearest - step, CAPACITY)
        if seconds_left is None or self.fixed or not self.step_seconds:
            return count
        return max(1, min(count, round(seconds_left / self.step_seconds)))

    def learn(self, count: int, seconds: float) -> None:
        """Take note of how long a chunk took."""
        self.step_seconds = seconds / max(count, 1)
        if not self.fixed:
            affordable = CHUNK_SECONDS * count / max(seconds, 1e-9)
            self.steps = max(1, min(int(affordable), 10 * self.steps, CAPACITY))
