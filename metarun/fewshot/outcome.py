"""What a classification after few examples gives."""

from pathlib import Path
from typing import Any, NamedTuple

from metarun.fewshot.feature_source import Source
from metarun.fewshot.left_out import Share
from metarun.fewshot.novelty import Threshold


class Prediction(NamedTuple):
    """The answer to one query."""

    file: Path
    best: list[tuple[str, float]]  # the likeliest classes with their probabilities, the best first
    distance: float  # squared, to the nearest class mean; see `centroids`
    is_unknown: bool | None  # whether it is beyond the threshold; None: there is none
    copy_of: Path | None  # a picture of the support with the same bytes
    truth: str | None  # its true class, if that is known


class Judgement(NamedTuple):
    """How far the answers can be trusted, by the support alone."""

    how: str  # how examples were left out
    share: Share | None  # of those that were named rightly; None: none could be left out
    confusions: list[dict[str, Any]]  # see `left_out.count_confusions`
    temperature: float
    is_calibrated: bool  # whether the temperature was fitted
    threshold: Threshold | None


class Outcome(NamedTuple):
    """What came out."""

    source: Source
    method: str
    dimensions: int  # of a picture's features
    classes: tuple[str, ...]
    support: tuple[tuple[Path, str], ...]  # readable pictures with labels
    judgement: Judgement | None  # None: too little has a label yet
    predictions: list[Prediction]  # one for each readable query; none without a judgement
    accuracy: Share | None  # on the queries whose true class is known, and in the support
    strangers: Share | None  # queries whose true class is not in the support, and how many were found unknown
    next: list[Path]  # queries that are worth a label next, the most useful first
    skipped: list[tuple[Path, str]]  # files that cannot be read, each with its fault
    notes: tuple[str, ...]  # what somebody should know

    @property
    def shots(self) -> list[int]:
        """The readable pictures of each class."""
        labels = [label for _, label in self.support]
        return [labels.count(name) for name in self.classes]

    @property
    def expected_accuracy(self) -> float | None:
        """The share of the answers that should be right, by their own probabilities; None without queries."""
        shares = [prediction.best[0][1] for prediction in self.predictions]
        return sum(shares) / len(shares) if shares else None
