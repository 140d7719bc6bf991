"""How many of the examples that a head has not seen it names rightly, with an interval, and which it confuses."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

NORMAL = 1.959963984540054  # quantile of the normal distribution that 95 % lie within
SHOWN = 10  # confusions that are named in a line


class Share(NamedTuple):
    """How many were right, with the 95 % interval of the share."""

    right: int
    asked: int

    @property
    def accuracy(self) -> float:
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """The score interval of Wilson (1927, JASA 22:209), which stays within [0, 1] and is right for few examples."""
        share, count, square = self.accuracy, self.asked, NORMAL**2
        middle = (share + square / (2 * count)) / (1 + square / count)
        width = NORMAL / (1 + square / count) * np.sqrt(share * (1 - share) / count + square / (4 * count**2))
        return max(0.0, float(middle - width)), min(1.0, float(middle + width))

    def describe(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**self._asdict(), "accuracy": self.accuracy, "interval": list(self.interval)}


def count_right(chosen: Int[np.ndarray, "example"], labels: Int[np.ndarray, "example"]) -> Share | None:
    """Return the share of right answers; None without examples."""
    return Share(int((chosen == labels).sum()), len(labels)) if len(labels) else None


def count_confusions(
    chosen: Int[np.ndarray, "example"], labels: Int[np.ndarray, "example"], classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return the entries of the confusion matrix that are not 0: {"class", "answered", "count"}, row by row."""
    pairs, counts = np.unique(np.stack([labels, chosen], axis=1), axis=0, return_counts=True)
    return [
        {"class": classes[true], "answered": classes[answered], "count": int(count)}
        for (true, answered), count in zip(pairs.tolist(), counts, strict=True)
    ]


def list_mistakes(confusions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the confusions of two different classes, the most frequent first."""
    wrong = [entry for entry in confusions if entry["class"] != entry["answered"]]
    return sorted(wrong, key=lambda entry: -entry["count"])[:SHOWN]
