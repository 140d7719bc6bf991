"""The answers to somebody's own queries, ready for a table, JSON, CSV and a contact sheet."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from metarun import base
from metarun.data import examples, labels_file
from metarun.errors import DataError, UsageError
from metarun.finished import own_pictures, own_support, sentence_answers, support_check, training_inputs
from metarun.finished.prediction import AdaptedLearner, TrainedRun, count_examples
from metarun.plain_text import escape

logger = logging.getLogger("metarun")

STDIN = Path("-")
FOLDERS = "the queries' folders"  # what says the true classes, if no list does


class PictureBlock(NamedTuple):
    """Pictures of a contact sheet, each with its caption."""

    pictures: np.ndarray  # float32 [example, height, width, channel] in [0, 1]
    captions: list[str]  # [example]
    right: list[bool] | None = None  # [example], whether a prediction is right; None: not known


class Sheet(NamedTuple):
    """What a contact sheet shows."""

    support: PictureBlock  # with their classes
    query: PictureBlock  # with the predicted classes
    inverted: bool  # whether 1 is black


class Answers(NamedTuple):
    """What was predicted, for every way of showing it."""

    facts: dict[str, Any]  # of the support, the accuracy if the true classes are known, and see `judge`
    records: list[dict[str, Any]]  # one for each query, for JSON
    header: list[str]
    rows: list[list[str]]  # one for each query, for CSV
    shown: int  # columns from the first that go to the terminal
    sheet: Sheet | None = None  # if the queries are pictures


def answer(
    run: TrainedRun,
    support: Path,
    queries: list[Path],
    *,
    polarity: str = "auto",
    truth: Path | None = None,
    fill: int | None = None,
) -> Answers:
    """Read the examples as the family's form says, adapt, and predict.

    Args:
      polarity: of pictures; see `own_pictures`.
      truth: a list of the true classes of pictures; see `data.labels_file`. None: the folders of the queries say them.
      fill: see `TrainedRun.predict`.

    Raises:
      MetarunError: what is wrong with the examples, or with the run.
    """
    if isinstance(run.form, base.Pictures):
        return answer_pictures(run, run.form, support, queries, polarity, truth, fill)
    if truth is not None:
        raise UsageError("the queries are no pictures", "--truth", "leave --truth out")
    if isinstance(run.form, base.Sentences):
        return answer_sentences(run, run.form, support, queries)
    return answer_table(run, support, queries)


def answer_pictures(
    run: TrainedRun,
    form: base.Pictures,
    support: Path,
    queries: list[Path],
    polarity: str,
    truth: Path | None,
    fill: int | None,
) -> Answers:
    """Take class folders as the support and picture files as queries."""
    own_pictures.refuse_other_polarity(polarity)
    files = list_pictures(queries)
    own = own_support.read_support(run, support, polarity)
    pictures = run.pictures.read(files, "invert" if own.inverted else "keep").inputs
    learner = run.adapt(own.examples)
    probabilities = learner.predict(pictures, fill=fill)
    known = find_classes(files, own.classes) if truth is None else read_truth(truth, files)
    source = FOLDERS if truth is None else str(truth)
    answers = answer_classes(own, [str(file) for file in files], probabilities, known, source)
    answers.facts.update(judge(learner, own.examples, pictures))
    if own.inverted:
        answers.facts["polarity"] = "inverted"
    return answers._replace(sheet=make_sheet(form, own, pictures, probabilities, known))


def list_pictures(queries: list[Path]) -> list[Path]:
    """Return the pictures among the queries of a command line, and refuse one without any."""
    refuse_other_queries(queries, "picture files, or a folder of them")
    return examples.list_queries(queries)


def make_sheet(
    form: base.Pictures,
    own: own_support.OwnSupport,
    pictures: np.ndarray,
    probabilities: np.ndarray,
    truth: list[str | None] | None,
) -> Sheet | None:
    """Return the contact sheet; None: the run does not see pictures, but features of them."""
    if pictures.ndim != 4:
        return None
    chosen = [own.classes[index] for index in probabilities.argmax(axis=1)]
    right = [there in (None, here) for here, there in zip(chosen, truth, strict=True)] if truth else None
    best = probabilities.max(axis=1)
    captions = [f"{escape(name)}\n{share:.2f}" for name, share in zip(chosen, best, strict=True)]
    labels = [escape(own.classes[label]) for label in own.examples.targets]
    block = PictureBlock(stretch_values(own.examples.inputs), labels)
    return Sheet(block, PictureBlock(stretch_values(pictures), captions, right), form.inverted)


def stretch_values(pictures: np.ndarray) -> np.ndarray:
    """Return pictures in [0, 1]: those of another scale, such as with mean 0, from their darkest to their lightest."""
    if own_pictures.is_plain(pictures):
        return pictures
    return (pictures - pictures.min()) / max(float(pictures.max() - pictures.min()), 1e-6)


def find_classes(files: Sequence[Path], classes: tuple[str, ...]) -> list[str | None] | None:
    """Return the class of each query by its folder; None: not all folders are called as classes."""
    folders: list[str | None] = [file.parent.name for file in files]
    return folders if all(name in classes for name in folders) else None


def read_truth(path: Path, files: Sequence[Path]) -> list[str | None] | None:
    """Return the class of each query by a list, None where it has none; None: it names no query.

    Raises:
      DataError: the list cannot be read.
    """
    known = labels_file.read_labels(path).by_file()
    truth = [known.get(file.resolve()) for file in files]
    return truth if any(truth) else None


def answer_classes(
    own: own_support.OwnSupport,
    inputs: list[str],
    probabilities: np.ndarray,
    truth: list[str | None] | None = None,
    source: str = FOLDERS,
) -> Answers:
    """Return answers that are classes; `truth` is the class of every query where it is known, from a `source`."""
    names = [escape(name) for name in own.classes]
    records, rows = [], []
    for name, row in zip(map(escape, inputs), probabilities.tolist(), strict=True):
        chosen = names[int(np.argmax(row))]
        shares = dict(zip(names, row, strict=True))
        records.append({"input": name, "class": chosen, "probability": max(row), "probabilities": shares})
        rows.append([name, chosen, *(f"{value:.6f}" for value in [max(row), *row])])
    shots = np.bincount(own.examples.targets, minlength=len(names)).tolist()
    facts: dict[str, Any] = {"classes": names, "shots": shots}
    if truth is not None:
        chosen_names = [own.classes[index] for index in probabilities.argmax(axis=1)]
        pairs = zip(chosen_names, truth, strict=True)
        hits = [here == there for here, there in pairs if there is not None]
        facts |= {"accuracy": sum(hits) / len(hits), "judged": len(hits), "judged_by": source}
    header = ["input", "class", "probability", *(f"probability of {name}" for name in names)]
    return Answers(facts, records, header, rows, shown=3)


def judge(learner: AdaptedLearner, support: base.Examples, queries: np.ndarray) -> dict[str, Any]:
    """Return what tells whether the answers can be trusted.

    Returns:
      "support", how well the support itself is told apart, if classes are predicted; "outside", which inputs lie
      outside what the run was trained on, if any do.
    """
    facts: dict[str, Any] = {}
    if check := support_check.check_support(learner, support):
        facts["support"] = check._asdict()
    inputs = {"support": support.inputs, "queries": queries}
    found = {name: training_inputs.find_outside(learner.run, values) for name, values in inputs.items()}
    if outside := {name: place._asdict() for name, place in found.items() if place is not None}:
        facts["outside"] = outside
    return facts


def answer_table(run: TrainedRun, support: Path, queries: list[Path]) -> Answers:
    """Take a CSV file of inputs and targets as the support, and CSV files of inputs as queries."""
    columns = int(np.prod(run.spec.input_shape))
    refuse_other_queries(queries, "a CSV file of inputs")
    own = own_support.read_support(run, support)
    tables = [examples.read_table(path, columns) for path in queries]
    numbers = np.concatenate([table.numbers for table in tables])
    inputs = numbers.reshape(-1, *run.spec.input_shape)
    learner = run.adapt(own.examples)
    answers, facts = learner.predict(inputs), judge(learner, own.examples, inputs)
    texts = format_numbers(numbers)
    if run.targets == "classes":
        classes = answer_classes(own, [" ".join(row) for row in texts], answers)
        return classes._replace(facts=classes.facts | facts)
    input_names = tables[0].names or own.columns[:columns] or number_columns("input", columns)
    output_names = own.columns[columns:] or number_columns("output", answers.shape[1])
    header = [escape(name) for name in (*input_names, *output_names)]
    rows = [[*text, *values] for text, values in zip(texts, format_numbers(answers), strict=True)]
    records = [
        {"input": [*map(float, row[:columns])], "output": [*map(float, row[columns:])]} for row in rows
    ]
    facts = {"shots": len(own.examples.inputs)} | facts
    return Answers(facts, records, header, rows, shown=len(header))


def answer_sentences(run: TrainedRun, form: base.Sentences, support: Path, queries: list[Path]) -> Answers:
    """Take pairs of sentences as the support, and sentences of text files or stdin as queries."""
    own = own_support.read_support(run, support)
    lines = [line for path in queries or [STDIN] for line in read_text(path)]
    sentences = [line.strip() for line in lines if line.strip()]
    if not sentences:
        where = ", ".join("stdin" if path == STDIN else str(path) for path in queries or [STDIN])
        raise DataError("there is no sentence to translate", where, "write one sentence a line")
    said = sentence_answers.translate(run.adapt(own.examples), form, sentences, "the query")
    rows = [[escape(source), escape(target)] for source, target in zip(sentences, said.texts, strict=True)]
    records: list[dict[str, Any]] = [{"input": source, "output": target} for source, target in rows]
    facts = {"shots": count_examples(own.examples.inputs)}
    if long := [place for place, parts in enumerate(said.parts) if parts > 1]:
        for place in long:
            records[place]["parts"] = said.parts[place]
        facts["in_parts"] = len(long)
        logger.warning(
            "%d of %d sentences are too long and were translated in parts", len(long), len(sentences)
        )
    return Answers(facts, records, ["input", "output"], rows, shown=2)


def refuse_other_queries(queries: Sequence[Path], what: str) -> None:
    """Refuse a command line without queries, or with those of stdin if they must be files."""
    if not queries:
        raise UsageError("there is nothing to predict", "--query", f"give {what}")
    if STDIN in queries:
        raise UsageError("stdin is for sentences", "--query", f"give {what}")


def read_text(path: Path) -> list[str]:
    """Read the lines of a text file, or of stdin."""
    if path == STDIN:
        content = sys.stdin.buffer.read(examples.MOST_BYTES + 1)
        if len(content) > examples.MOST_BYTES:
            raise DataError(
                f"there are more than {examples.MOST_BYTES:,} bytes", "stdin", "give fewer at once"
            )
        return examples.decode_lines(content, "stdin")
    return examples.read_lines(path)


def format_numbers(numbers: Float[np.ndarray, "row column"]) -> list[list[str]]:
    """Format each number with the fewest digits that tell it from others of its precision: 0.2, not 0.200000003."""
    return [[str(value) for value in row] for row in numbers]


def number_columns(name: str, columns: int) -> list[str]:
    """Return names for columns that have none."""
    return [name] if columns == 1 else [f"{name} {index}" for index in range(1, columns + 1)]
