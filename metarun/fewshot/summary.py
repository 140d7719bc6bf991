"""What came out, for JSON and for CSV. Names of files and classes are escaped as in all that metarun prints."""

from pathlib import Path
from typing import Any

from metarun.fewshot.outcome import Judgement, Outcome, Prediction
from metarun.plain_text import escape

HEADER = [
    *("file", "class", "probability", "second class", "second probability"),
    *("distance", "unknown", "copy of", "true class"),
]


def describe(outcome: Outcome) -> dict[str, Any]:
    """Return everything, ready for JSON.

    Returns:
      "features": where they come from; "method"; "classes": [{"class", "shots"}]; "judgement": how far the answers
      can be trusted, None before there are labels of two classes; "predictions": [{"file", "class", "probability",
      "best", "distance", "unknown", "copy_of", "truth"}]; "expected_accuracy": by the probabilities; "accuracy": where
      true classes are known, else None; "strangers": how many queries of other classes were found unknown; "next":
      files; "skipped": [{"file", "fault"}]; "notes".
    """
    judgement, accuracy = outcome.judgement, outcome.accuracy
    return {
        "features": {
            "kind": outcome.source.kind,
            "source": escape(outcome.source.label),
            "dimensions": outcome.dimensions,
        },
        "method": outcome.method,
        "classes": [
            {"class": escape(name), "shots": shots}
            for name, shots in zip(outcome.classes, outcome.shots, strict=True)
        ],
        "judgement": None if judgement is None else describe_judgement(judgement),
        "predictions": [describe_prediction(one) for one in outcome.predictions],
        "expected_accuracy": outcome.expected_accuracy,
        "accuracy": None if accuracy is None else accuracy.describe(),
        "strangers": None if outcome.strangers is None else outcome.strangers.describe(),
        "next": [show(file) for file in outcome.next],
        "skipped": [{"file": show(file), "fault": escape(fault)} for file, fault in outcome.skipped],
        "notes": [escape(note) for note in outcome.notes],
    }


def describe_judgement(judgement: Judgement) -> dict[str, Any]:
    """Return how far the answers can be trusted, ready for JSON."""
    return {
        "left_out": judgement.how,
        "accuracy": None if judgement.share is None else judgement.share.describe(),
        "temperature": judgement.temperature,
        "calibrated": judgement.is_calibrated,
        "unknown": None if judgement.threshold is None else judgement.threshold.describe(),
        "confusions": [
            entry | {"class": escape(entry["class"]), "answered": escape(entry["answered"])}
            for entry in judgement.confusions
        ],
    }


def describe_prediction(prediction: Prediction) -> dict[str, Any]:
    """Return one answer, ready for JSON."""
    best = [{"class": escape(name), "probability": share} for name, share in prediction.best]
    return {
        "file": show(prediction.file),
        **best[0],
        "best": best,
        "distance": prediction.distance,
        "unknown": prediction.is_unknown,
        "copy_of": None if prediction.copy_of is None else show(prediction.copy_of),
        "truth": None if prediction.truth is None else escape(prediction.truth),
    }


def list_rows(outcome: Outcome) -> list[list[str]]:
    """Return a row with the columns of HEADER for each answer."""
    rows = []
    for one in outcome.predictions:
        (first, share), (second, second_share) = one.best[:2]
        unknown = {True: "yes", False: "no", None: ""}[one.is_unknown]
        copy = "" if one.copy_of is None else show(one.copy_of)
        shares = f"{share:.6f}", escape(second), f"{second_share:.6f}", f"{one.distance:.6f}"
        rows.append([show(one.file), escape(first), *shares, unknown, copy, escape(one.truth or "")])
    return rows


def show(path: Path) -> str:
    """Return a path that stays on one line of a terminal."""
    return escape(str(path))
