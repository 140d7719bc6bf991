"""Pictures named after few labelled ones, from Python: `metarun.classify`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from metarun.api.call_options import Place, quiet

if TYPE_CHECKING:
    from metarun.api.views import FewShotAnswers


def classify(
    support: Place | Iterable[Place],
    queries: Place | Iterable[Place] = (),
    *,
    weights: Place | None = None,
    run: Place | None = None,
    model: str | None = None,
    method: str | None = None,
    truth: Place | None = None,
    suggest: int = 10,
    polarity: str = "auto",
) -> "FewShotAnswers":
    """Name pictures after a few labelled ones, without any training: `metarun fewshot`. Writes the cache alone.

        answers = metarun.classify("my-classes/", "photos/", weights="dinov2-small.safetensors")
        answers["predictions"][0]["class"]

    Args:
      support: a folder of class folders, or a list `file,label`; several are joined.
      queries: pictures, or folders of them; none: the support alone is judged.
      weights, run, model: where features come from; see `fewshot.feature_source`.
      method: centroid, logistic, or learner, which needs a run. None: learner with a run, else centroid.
      truth: a list `file,label` of the true classes of queries.
      suggest: how many pictures are suggested for a label.
      polarity: with a run: auto, keep or invert.

    Raises:
      MetarunError: what is wrong, and what to do.
    """
    from metarun.api.views import FewShotAnswers
    from metarun.fewshot import classification, feature_source, summary

    request = classification.Request(
        supports=list_places(support),
        queries=list_places(queries),
        method=method or ("learner" if run is not None else None),
        truth=None if truth is None else Path(truth),
        count=suggest,
        polarity=polarity,
    )
    with quiet():
        named = None if weights is None else Path(weights), None if run is None else Path(run)
        outcome = classification.classify(request, feature_source.choose(*named, model))
    return FewShotAnswers(summary.describe(outcome))


def list_places(places: Place | Iterable[Place]) -> tuple[Path, ...]:
    """Return one path, or several, as a tuple."""
    if isinstance(places, str | os.PathLike):
        return (Path(places),)
    return tuple(map(Path, places))
