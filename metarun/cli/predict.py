"""`metarun predict`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metarun.cli.arguments import InnerSteps, Json, Member, OwnMode, Replica, RunPath, Stage

if TYPE_CHECKING:
    from metarun.finished.answers import Answers
    from metarun.finished.prediction import TrainedRun

MEANINGS = {"inductive": "the support normalises", "transductive": "the queries normalise one another"}


def predict(
    run: RunPath,
    support: Annotated[
        Path, typer.Option(help="Class folders of pictures; CSV of inputs and targets; TSV of sentences.")
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUERY | KEY=VALUE]...", help="More queries, and overrides as in eval."),
    ] = None,
    query: Annotated[
        list[Path] | None,
        typer.Option(help="Pictures or a folder of them; CSV of inputs; text, or - for stdin."),
    ] = None,
    stage: Stage = None,
    mode: OwnMode = None,
    inner_steps: InnerSteps = None,
    replica: Replica = 0,
    member: Member = 0,
    as_json: Json = False,
    csv: Annotated[Path | None, typer.Option(help="Write the predictions as CSV.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of pictures as PNG.")] = None,
) -> None:
    """Adapt a run to your own examples, and label others. Writes nothing to the run.

    The last line says how well the support itself is told apart, by learners that have not seen the example if the
    classes have several. A warning says which inputs are unlike those of the training.
    """
    from metarun.cli import progress_display
    from metarun.finished.finished_run import find_run

    overrides = [text for text in more or [] if re.match(r"[\w.]+=", text)]
    queries = [*(query or []), *(Path(text) for text in more or [] if text not in overrides)]
    finished = find_run(run, overrides, stage=stage)  # refuses a wrong command line before jax is imported
    from metarun.finished import answers, prediction

    with progress_display.show_preparation():
        trained = prediction.load(
            finished,
            mode=mode,
            inner_steps=inner_steps,
            replica=replica,
            member=member,
            overrides=overrides,
        )
    if sheet is not None:
        refuse_sheet(trained)
    answered = answers.answer(trained, support, queries)
    warn_of_outside(answered.facts.get("outside", {}))
    print_answers(trained, answered, as_json)
    if csv is not None:
        write_csv(csv, answered)
    if sheet is not None:
        write_sheet(sheet, answered)


def print_answers(run: "TrainedRun", answers: "Answers", as_json: bool) -> None:
    """Print a table with what it rests on in the last line, or one JSON object."""
    from metarun.cli.text_tables import align
    from metarun.runs import strict_json

    if as_json:
        head = {"run": str(run.path), "stage": run.stage, "step": run.step, "mode": run.mode}
        head |= {"inner_steps": run.inner_steps}
        typer.echo(strict_json.encode(head | answers.facts | {"predictions": answers.records}))
        return
    rows = [row[: answers.shown] for row in [answers.header, *answers.rows]]
    if run.targets == "classes":
        rows = [rows[0], *([*row[:2], f"{float(row[2]):.4f}"] for row in rows[1:])]
    typer.echo(align(rows))
    typer.echo("; ".join(describe_basis(run, answers)))


def describe_basis(run: "TrainedRun", answers: "Answers") -> list[str]:
    """Say what the answers rest on."""
    facts = answers.facts
    clauses = []
    if "classes" in facts:
        low, high = min(facts["shots"]), max(facts["shots"])
        shots = f"{low} shot{'s' * (low != 1)}" if low == high else f"{low} to {high} shots"
        clauses.append(f"{len(facts['classes'])} ways, {shots}")
    else:
        clauses.append(f"{facts['shots']} shot{'s' * (facts['shots'] != 1)}")
    clauses.append(f"stage {run.stage}, step {run.step}")
    if run.inner_steps is not None:
        clauses.append(f"{run.inner_steps} inner step{'s' * (run.inner_steps != 1)}")
    clauses.append(f"{run.mode} mode ({MEANINGS[run.mode]})")
    if "support" in facts:
        clauses.append(describe_support(facts["support"]))
    if "accuracy" in facts:
        clauses.append(f"accuracy {facts['accuracy']:.4f} of {len(answers.records)}, by the queries' folders")
    return clauses


def write_csv(path: Path, answers: "Answers") -> None:
    """Write all columns, with a header, in UTF-8."""
    from metarun.runs import files

    files.write_csv(path, [answers.header, *answers.rows])


def describe_support(check: dict[str, Any]) -> str:
    """Say how well the support itself is told apart."""
    how = "left out one by one" if check["method"] == "leave-one-out" else "that the learner has seen"
    return f"support: {check['right']} of {check['asked']} told apart, {how}"


def warn_of_outside(outside: dict[str, dict[str, Any]]) -> None:
    """Say on stderr which inputs lie outside what the run was trained on."""
    for name, place in outside.items():
        typer.echo(
            f"warning: {place['outside']} of {place['of']} inputs of the {name} lie outside what the run was "
            f"trained on: {place['reason']}",
            err=True,
        )


def refuse_sheet(run: "TrainedRun") -> None:
    """Raise UsageError if the queries are no pictures."""
    from metarun import base, errors

    if not isinstance(run.form, base.Pictures):
        raise errors.UsageError(
            "the queries are no pictures, and have no contact sheet", "--sheet", "leave --sheet out"
        )


def write_sheet(path: Path, answers: "Answers") -> None:
    """Write the contact sheet of pictures."""
    from metarun.figures import contact_sheet

    assert answers.sheet is not None  # `refuse_sheet` has seen to it
    contact_sheet.write_sheet(path, answers.sheet)
