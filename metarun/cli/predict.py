"""`metarun predict`: files of somebody's own to examples, and answers to a table, JSON, CSV and a contact sheet."""

import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import typer
from jaxtyping import Float

from metarun import base, pictures
from metarun.cli.tables import aligned
from metarun.data import examples
from metarun.errors import DataError, UsageError
from metarun.prediction import TrainedRun
from metarun.runs import files, strict_json

STDIN = Path("-")


class Answers(NamedTuple):
    """What was predicted, for every way of showing it."""

    facts: dict[str, Any]  # of the support, and the accuracy where the true classes are known
    records: list[dict[str, Any]]  # one a query, for JSON
    header: list[str]
    rows: list[list[str]]  # one a query, for CSV
    shown: int  # columns from the first that go to the terminal
    sheet: pictures.Sheet | None = None  # where the queries are pictures


def answer(run: TrainedRun, support: Path, queries: list[Path]) -> Answers:
    """Read the examples as the family's form says, adapt, and predict.

    Raises:
      MetarunError: what is wrong with the examples, or with the run.
    """
    if isinstance(run.form, base.Pictures):
        return of_pictures(run, run.form, support, queries)
    if isinstance(run.form, base.Sentences):
        return of_sentences(run, run.form, support, queries)
    return of_table(run, support, queries)


def of_pictures(run: TrainedRun, form: base.Pictures, support: Path, queries: list[Path]) -> Answers:
    """Class folders as the support, picture files as queries. The ways are checked before a picture is read."""
    if run.kind != "classes" or len(run.spec.input_shape) != 3:
        what = f"the run predicts {run.kind} of inputs {run.spec.input_shape}"
        raise UsageError(what, str(run.path), "use metarun.load(run) from Python")
    expect_queries(queries, "picture files, or a folder of them")
    classes, found = examples.list_classes(support), examples.list_queries(queries)
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(part) for part in classes.values()])
    shape = run.spec.input_shape
    run.check(base.Examples(jax.ShapeDtypeStruct((len(labels), *shape), np.float32), labels), len(classes))
    inputs = examples.read_pictures(
        [file for part in classes.values() for file in part], shape, form.inverted
    )
    query = examples.read_pictures(found, shape, form.inverted)
    names = list(classes)
    probabilities = run.adapt(base.Examples(inputs, labels)).predict(query)
    truth = [file.parent.name for file in found]  # of a query in a folder that is called as a class
    known = all(name in classes for name in truth)
    shots = {name: len(part) for name, part in classes.items()}
    answers = of_classes(names, shots, [str(file) for file in found], probabilities, truth if known else None)
    chosen = [names[index] for index in probabilities.argmax(axis=1)]
    right = [here == there for here, there in zip(chosen, truth, strict=True)] if known else None
    best = probabilities.max(axis=1)
    captions = [f"{printable(name)}\n{share:.2f}" for name, share in zip(chosen, best, strict=True)]
    block = pictures.Block(query, captions, right)
    owners = pictures.Block(inputs, [printable(names[label]) for label in labels])
    return answers._replace(sheet=pictures.Sheet(owners, block, form.inverted))


def of_classes(
    names: list[str],
    shots: dict[str, int],
    inputs: list[str],
    probabilities: np.ndarray,
    truth: list[str] | None = None,
) -> Answers:
    """Answers that are classes; `truth` is the class of every query, where it is known."""
    records, rows = [], []
    for name, row in zip(inputs, probabilities.tolist(), strict=True):
        chosen = names[int(np.argmax(row))]
        records.append(
            {
                "input": printable(name),
                "class": printable(chosen),
                "probability": max(row),
                "probabilities": dict(zip(map(printable, names), row, strict=True)),
            }
        )
        rows.append([printable(name), printable(chosen), *(f"{value:.6f}" for value in [max(row), *row])])
    facts: dict[str, Any] = {"classes": list(map(printable, names)), "shots": list(shots.values())}
    if truth is not None:
        chosen_names = [names[index] for index in probabilities.argmax(axis=1)]
        hits = [here == there for here, there in zip(chosen_names, truth, strict=True)]
        facts["accuracy"] = sum(hits) / len(hits)
    header = ["input", "class", "probability", *(f"probability of {printable(name)}" for name in names)]
    return Answers(facts, records, header, rows, shown=3)


def of_table(run: TrainedRun, support: Path, queries: list[Path]) -> Answers:
    """CSV of inputs and targets as the support, CSV of inputs as queries."""
    columns = int(np.prod(run.spec.input_shape))
    expect_queries(queries, "a CSV file of inputs")
    labelled = run.kind == "classes"
    given = examples.read_table(support, columns + (0 if labelled else run.spec.output_size), labelled)
    tables = [examples.read_table(path, columns) for path in queries]
    query = np.concatenate([table.numbers for table in tables])
    inputs = given.numbers[:, :columns].reshape(-1, *run.spec.input_shape)
    wanted = query.reshape(-1, *run.spec.input_shape)
    texts = spelled(query)
    if labelled:
        names = sorted(set(given.labels))
        if len(names) < 2:
            what = f"the support has only one class, {printable(names[0])}"
            raise DataError(what, str(support), "give examples of two classes or more")
        targets = np.array([names.index(label) for label in given.labels], np.int32)
        probabilities = run.adapt(base.Examples(inputs, targets)).predict(wanted)
        shots = {name: given.labels.count(name) for name in names}
        return of_classes(names, shots, [" ".join(row) for row in texts], probabilities)
    outputs = run.adapt(base.Examples(inputs, given.numbers[:, columns:])).predict(wanted)
    headers = (tables[0].names or given.names[:columns], given.names[columns:])
    header = [
        *(headers[0] or numbered("input", columns)),
        *(headers[1] or numbered("output", outputs.shape[1])),
    ]
    rows = [[*text, *values] for text, values in zip(texts, spelled(outputs), strict=True)]
    records = [
        {"input": [*map(float, row[:columns])], "output": [*map(float, row[columns:])]} for row in rows
    ]
    return Answers({"shots": len(inputs)}, records, list(map(printable, header)), rows, shown=len(header))


def spelled(numbers: Float[np.ndarray, "row column"]) -> list[list[str]]:
    """Each number with the fewest digits that tell it from others of its precision: 0.2, not 0.200000003."""
    return [[str(value) for value in row] for row in numbers]


def of_sentences(run: TrainedRun, form: base.Sentences, support: Path, queries: list[Path]) -> Answers:
    """Pairs of sentences as the support, sentences of text files or stdin as queries."""
    pairs = examples.read_pairs(support)
    lines = [line for path in queries or [STDIN] for line in read_text(path)]
    sentences = [line.strip() for line in lines if line.strip()]
    if not sentences:
        where = ", ".join("stdin" if path == STDIN else str(path) for path in queries or [STDIN])
        raise DataError("there is no sentence to translate", where, "write one sentence a line")
    given = encoded(form, [source for source, _ in pairs], [target for _, target in pairs], str(support))
    inputs = encoded(form, sentences, [""] * len(sentences), "the query").inputs
    translations = form.spell(run.adapt(given).predict(inputs))
    rows = [
        [printable(source), printable(target)] for source, target in zip(sentences, translations, strict=True)
    ]
    records = [{"input": source, "output": target} for source, target in rows]
    return Answers({"shots": len(pairs)}, records, ["input", "output"], rows, shown=2)


def encoded(form: base.Sentences, sources: list[str], targets: list[str], where: str) -> base.Examples:
    """The sentences as examples.

    Raises:
      DataError: the family refuses one of them.
    """
    try:
        return form.encode(sources, targets)
    except ValueError as error:
        what, *remedy = map(str, error.args)
        raise DataError(what, where, *(remedy or ["change the sentence"])) from error


def expect_queries(queries: Sequence[Path], what: str) -> None:
    """Refuse a command line without queries, or with those of stdin, where they are files."""
    if not queries:
        raise UsageError("there is nothing to predict", "--query", f"give {what}")
    if STDIN in queries:
        raise UsageError("stdin is for sentences", "--query", f"give {what}")


def read_text(path: Path) -> list[str]:
    """The lines of a text file, or of stdin."""
    return examples.decoded(sys.stdin.buffer.read(), "stdin") if path == STDIN else examples.read_lines(path)


def print_answers(run: TrainedRun, answers: Answers, as_json: bool) -> None:
    """A table with what it rests on in the last line, or one JSON object."""
    if as_json:
        head = {"run": str(run.path), "stage": run.stage, "step": run.step, "mode": run.mode}
        head |= {"inner_steps": run.inner_steps}
        typer.echo(strict_json.encode(head | answers.facts | {"predictions": answers.records}))
        return
    shown = [row[: answers.shown] for row in [answers.header, *answers.rows]]
    if run.kind == "classes":
        shown = [shown[0], *([*row[:2], f"{float(row[2]):.4f}"] for row in shown[1:])]
    typer.echo(aligned(shown))
    typer.echo("; ".join(spoken(run, answers)))


def spoken(run: TrainedRun, answers: Answers) -> list[str]:
    """What the answers rest on, in words."""
    facts = answers.facts
    parts = []
    if "classes" in facts:
        low, high = min(facts["shots"]), max(facts["shots"])
        shots = f"{low} shot{'s' * (low != 1)}" if low == high else f"{low} to {high} shots"
        parts.append(f"{len(facts['classes'])} ways, {shots}")
    else:
        parts.append(f"{facts['shots']} shot{'s' * (facts['shots'] != 1)}")
    parts.append(f"stage {run.stage}, step {run.step}")
    if run.inner_steps is not None:
        parts.append(f"{run.inner_steps} inner step{'s' * (run.inner_steps != 1)}")
    meaning = {"inductive": "the support normalises", "transductive": "the queries normalise one another"}
    parts.append(f"{run.mode} mode ({meaning[run.mode]})")
    if "accuracy" in facts:
        parts.append(f"accuracy {facts['accuracy']:.4f} of {len(answers.records)}, by the queries' folders")
    return parts


def write_csv(path: Path, answers: Answers) -> None:
    """All columns, with a header, in UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([answers.header, *answers.rows])
    files.write_text(path, text.getvalue())


def write_sheet(path: Path, answers: Answers) -> None:
    """The contact sheet.

    Raises:
      UsageError: the queries are no pictures.
    """
    if answers.sheet is None:
        raise UsageError("there is no contact sheet of what are no pictures", "--sheet", "leave --sheet out")
    pictures.write_sheet(path, answers.sheet)


def numbered(name: str, columns: int) -> list[str]:
    """Names of columns."""
    return [name] if columns == 1 else [f"{name} {index}" for index in range(1, columns + 1)]


def printable(text: str) -> str:
    """Text that no terminal and no encoding stumbles over: names of files are bytes that mean what they like."""
    whole = os.fsencode(text).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in whole)
