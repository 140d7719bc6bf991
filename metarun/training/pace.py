"""How many steps the next chunk has."""

from metarun.training.loop import CAPACITY

CHUNK_SECONDS = 1.0  # how long a chunk should last: long beside a call, short beside a wait for Ctrl-C


class Pace:
    """Chooses how many steps the next chunk has: as many as last about CHUNK_SECONDS, or a fixed number."""

    def __init__(self, fixed: int | None) -> None:
        self.fixed = fixed
        self.steps = fixed or 1

    def next(self, step: int, ends: list[int]) -> int:
        """Return the number of steps from `step` to the end of the chunk, which reaches beyond none of `ends`."""
        nearest = min(end for end in ends if end > step)
        return min(self.steps, nearest - step, CAPACITY)

    def learn(self, count: int, seconds: float) -> None:
        """Take note of how long a chunk took."""
        if not self.fixed:
            affordable = CHUNK_SECONDS * count / max(seconds, 1e-9)
            self.steps = max(1, min(int(affordable), 10 * self.steps, CAPACITY))
