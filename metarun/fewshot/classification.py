"""From pictures with few labels to answers and what they are worth: everything, one after the other."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from metarun import base
from metarun.data import labels_file
from metarun.errors import DataError, UsageError
from metarun.fewshot import (
    centroids,
    feature_source,
    gathering,
    heads,
    left_out,
    novelty,
    pictures,
    suggestions,
    temperature,
)
from metarun.fewshot.feature_source import Source
from metarun.fewshot.gathering import Gathered
from metarun.fewshot.heads import Head
from metarun.fewshot.left_out import Share
from metarun.fewshot.novelty import Threshold
from metarun.fewshot.outcome import Judgement, Outcome, Prediction
from metarun.fewshot.pictures import Pictures

BEST = 5  # classes that a prediction names
NAMED = 3  # files that a note names


@dataclass(frozen=True)
class Request:
    """What somebody asks for."""

    supports: tuple[Path, ...] = ()  # see `gathering`
    queries: tuple[Path, ...] = ()  # picture files and folders; none: the support alone is judged
    method: str | None = None  # of `heads.METHODS`; None: learner with a run that is named, else centroid
    labels: Path | None = None  # a list of labels, which may not be there yet; it belongs to the support
    # A list of the true classes of queries; None: their folders say them, if they are called as the classes.
    truth: Path | None = None
    count: int = 10  # pictures that are suggested for a label
    polarity: str = "auto"  # with a run; see `finished.own_pictures`


def classify(request: Request, source: Source | None = None) -> Outcome:
    """Name pictures after few examples.

    Args:
      source: of the features; None: `feature_source.choose`.

    Raises:
      DataError: there are no labels of two classes, and no list in which to write them; or what is wrong with a file.
      UsageError: there is no such method, or it needs a run.
      MetarunError: what is wrong with the weights or the run.
    """
    refuse_other_method(request.method)
    gathered = gathering.gather(request.supports, request.queries, request.labels)
    is_start = request.labels is not None and bool(gathered.queries)
    if not is_start:
        refuse_one_class(sorted(set(gathered.labels.values())), request)
    source = source or feature_source.choose()
    method = choose_method(request.method, source)
    read = pictures.read(gathered, source, request.polarity)
    support = tuple((file, gathered.labels[file]) for file in read.files[: read.labelled])
    classes = tuple(sorted({label for _, label in support}))
    notes = (*source.notes, *note_gathered(gathered, classes))
    empty = Outcome(
        source,
        method,
        read.features.shape[1],
        classes,
        support,
        None,
        [],
        None,
        None,
        [],
        read.skipped,
        notes,
    )
    if len(classes) < 2 and is_start:
        return begin(empty, request, read)
    refuse_one_class(classes, request)
    return answer(empty, request, read)


def begin(empty: Outcome, request: Request, read: Pictures) -> Outcome:
    """Suggest the first pictures for a label, without any head."""
    rows, count = read.features, read.labelled
    chosen = suggestions.choose(np.ones(len(rows) - count), rows[count:], rows[:count], request.count)
    note = "there are no labels of two classes yet, so nothing is named"
    queries = read.files[count:]
    return empty._replace(next=[queries[place] for place in chosen], notes=(*empty.notes, note))


def answer(empty: Outcome, request: Request, read: Pictures) -> Outcome:
    """Fit a head to the support, judge it, and name the queries."""
    count, rows, classes = read.labelled, read.features, empty.classes
    places = {name: place for place, name in enumerate(classes)}
    labels = np.array([places[label] for _, label in empty.support], np.int32)
    head = fit_head(empty.method, empty.source, read, labels)
    judgement = judge(head, read.rows[:count], labels, classes)
    predictions = name_queries(head, judgement, request, read, labels, classes)
    judged = [one for one in predictions if one.truth is not None and one.copy_of is None]
    known = [one for one in judged if one.truth in classes]
    strange = [one for one in judged if one.truth not in classes]
    right = sum(one.truth == one.best[0][0] for one in known)
    found = sum(bool(one.is_unknown) for one in strange)
    chosen = suggest(predictions, rows, count, request.count)
    return empty._replace(
        judgement=judgement,
        predictions=predictions,
        accuracy=Share(right, len(known)) if known else None,
        strangers=Share(found, len(strange)) if strange else None,
        next=[predictions[place].file for place in chosen],
        notes=(*empty.notes, *note_copies(read, dict(empty.support))),
    )


def fit_head(method: str, source: Source, read: Pictures, labels: Int[np.ndarray, "example"]) -> Head:
    """Fit the head of a method to the support."""
    if method == "learner":
        assert source.run is not None and read.inputs is not None  # `choose_method` has seen to it
        return heads.fit_learner(source.run, base.Examples(read.inputs[: read.labelled], labels))
    fit = heads.fit_centroid if method == "centroid" else heads.fit_logistic
    return fit(read.features[: read.labelled], labels)


def judge(
    head: Head,
    rows: Float[np.ndarray, "example feature"],
    labels: Int[np.ndarray, "example"],
    classes: tuple[str, ...],
) -> Judgement:
    """Judge a head by what it has not seen of the support, whose features as the network gives them are `rows`."""
    scores, true = head.left_out.scores, labels[head.left_out.places]
    chosen = scores.argmax(axis=1) if len(true) else true
    return Judgement(
        head.left_out.how,
        left_out.count_right(chosen, true),
        left_out.count_confusions(chosen, true, classes) if len(true) else [],
        temperature.fit(scores, true) if len(true) else temperature.UNFITTED,
        bool(len(true)),
        novelty.find_threshold(rows, labels),
    )


def name_queries(
    head: Head,
    judgement: Judgement,
    request: Request,
    read: Pictures,
    labels: Int[np.ndarray, "example"],
    classes: tuple[str, ...],
) -> list[Prediction]:
    """Return the answer to each query."""
    count = read.labelled
    files, rows = read.files[count:], read.features[count:]
    if not files:
        return []
    asked = read.inputs[count:] if head.method == "learner" and read.inputs is not None else rows
    probabilities = temperature.make_probabilities(head.score(asked), judgement.temperature)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :BEST]
    distances = centroids.measure(centroids.fit(read.features[:count], labels), rows).min(axis=1)
    unknown = find_unknown(judgement.threshold, distances)
    copies = gathering.find_copies(read.files, read.digests)
    support, truth = set(read.files[:count]), find_truth(request, files, classes)
    return [
        Prediction(
            file,
            [(classes[index], float(probabilities[place, index])) for index in order[place]],
            float(distances[place]),
            unknown[place],
            copies[file] if copies.get(file) in support else None,
            truth[place],
        )
        for place, file in enumerate(files)
    ]


def find_unknown(threshold: Threshold | None, distances: np.ndarray) -> list[bool | None]:
    """Return whether each distance is beyond the threshold; None without a useful threshold."""
    if threshold is None or not threshold.is_useful:
        return [None] * len(distances)
    return [bool(distance > threshold.distance) for distance in distances]


def find_truth(request: Request, files: tuple[Path, ...], classes: tuple[str, ...]) -> list[str | None]:
    """Return the true class of each query, None where it is not known.

    Raises:
      DataError: the list of true classes cannot be read.
    """
    if request.truth is not None:
        known = labels_file.read_labels(request.truth).by_file()
        return [known.get(file.resolve()) for file in files]
    folders = [file.parent.name for file in files]
    return list(folders) if set(folders) <= set(classes) else [None] * len(files)


def suggest(
    predictions: list[Prediction], features: Float[np.ndarray, "example feature"], labelled: int, count: int
) -> list[int]:
    """Return the places of the predictions that are worth a label next."""
    if not predictions or not count:
        return []
    best = np.array([[share for _, share in one.best[:2]] for one in predictions])
    doubt = suggestions.measure_doubt(best, np.array([bool(one.is_unknown) for one in predictions]))
    doubt[[one.copy_of is not None for one in predictions]] = 0
    return suggestions.choose(doubt, features[labelled:], features[:labelled], count)


def choose_method(method: str | None, source: Source) -> str:
    """Return the method.

    Raises:
      UsageError: the learner is asked for, and the features are of no run.
    """
    if method == "learner" and source.run is None:
        raise UsageError("a learner comes from a run", "--method learner", "name the run by --run")
    return method or "centroid"


def refuse_other_method(method: str | None) -> None:
    """Raise UsageError for a method that does not exist."""
    if method is not None and method not in heads.METHODS:
        raise UsageError(f"there is no method {method}", "--method", f"use one of {', '.join(heads.METHODS)}")


def refuse_one_class(classes: list[str] | tuple[str, ...], request: Request) -> None:
    """Raise DataError unless there are two classes."""
    if len(classes) > 1:
        return
    what = (
        f"the support has only one class, {classes[0]}" if classes else "there are no pictures with a label"
    )
    where = ", ".join(map(str, (*request.supports, *filter(None, [request.labels])))) or "--support"
    raise DataError(what, where, f"{gathering.LAYOUT}, with two classes or more")


def note_gathered(gathered: Gathered, classes: tuple[str, ...]) -> list[str]:
    """Say what was left out before anything was computed."""
    notes = []
    if gathered.labelled_queries:
        notes.append(f"{count(gathered.labelled_queries, 'query', 'queries')} left out: labelled already")
    if lost := sorted(set(gathered.labels.values()) - set(classes)):
        notes.append(f"no picture can be read of {', '.join(lost[:NAMED])}{', …' * (len(lost) > NAMED)}")
    return notes


def note_copies(read: Pictures, labels: dict[Path, str]) -> list[str]:
    """Say which pictures are the same, byte for byte, where that matters."""
    copies = gathering.find_copies(read.files, read.digests)
    twice = [file for file in copies if file not in labels and copies[file] in labels]
    torn = [file for file in copies if file in labels and labels[file] != labels[copies[file]]]
    notes = []
    if twice:
        shown = ", ".join(f"{file} = {copies[file]}" for file in twice[:NAMED])
        what = count(len(twice), "query is a copy", "queries are copies")
        notes.append(f"{what} of a picture of the support, and not counted in the accuracy: {shown}")
    for file in torn[:NAMED]:
        other = copies[file]
        notes.append(f"the same picture has two labels: {other} ({labels[other]}), {file} ({labels[file]})")
    return notes


def count(number: int, one: str, many: str) -> str:
    """Return `1 query` or `3 queries`."""
    return f"{number:,} {one if number == 1 else many}"
