"""`metarun predict`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metarun.cli.arguments import (
    AllowOlder,
    InnerSteps,
    Json,
    Member,
    OwnMode,
    Polarity,
    Replica,
    RunPath,
    Stage,
    Truth,
)

if TYPE_CHECKING:
    from metarun.finished.answers import Answers
    from metarun.finished.own_episodes import OwnEpisode
    from metarun.finished.prediction import TrainedRun

MEANINGS = {"inductive": "the support normalises", "transductive": "the queries normalise one another"}


def predict(
    run: RunPath,
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUERY | KEY=VALUE]...", help="More queries, and overrides as in eval."),
    ] = None,
    support: Annotated[
        list[Path] | None,
        typer.Option(
            help="Class folders of pictures; CSV of inputs and targets; TSV of sentences. Several: a --query each."
        ),
    ] = None,
    query: Annotated[
        list[Path] | None,
        typer.Option(help="Pictures or a folder of them; CSV of inputs; text, or - for stdin."),
    ] = None,
    episodes: Annotated[
        Path | None,
        typer.Option(help="A folder of episodes, EPISODE/support and EPISODE/query, answered at once."),
    ] = None,
    truth: Truth = None,
    polarity: Polarity = "auto",
    stage: Stage = None,
    mode: OwnMode = None,
    inner_steps: InnerSteps = None,
    replica: Replica = 0,
    member: Member = 0,
    allow_older: AllowOlder = False,
    as_json: Json = False,
    csv: Annotated[Path | None, typer.Option(help="Write the predictions as CSV.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of pictures as PNG.")] = None,
) -> None:
    """Adapt a run to your own examples, and label others. Writes nothing to the run.

    The last line says how well the support itself is told apart, by learners that have not seen the example if the
    classes have several. A warning says which inputs are unlike those of the training. Many episodes in one call cost
    little more than one.
    """
    from metarun.cli import progress_display
    from metarun.finished.finished_run import find_run

    overrides = [text for text in more or [] if re.match(r"[\w.]+=", text)]
    queries = [*(query or []), *(Path(text) for text in more or [] if text not in overrides)]
    # It refuses a wrong command line before jax is imported.
    finished = find_run(run, overrides, stage=stage, allow_older=allow_older)
    from metarun.finished import own_episodes, prediction

    asked = list_asked(support or [], queries, episodes)
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
        refuse_sheet(trained, len(asked))
    answered = list(own_episodes.answer_all(trained, asked, polarity=polarity, truth=truth))
    for answers in answered:
        warn_of_outside(answers.facts.get("outside", {}))
    if episodes is None and len(asked) == 1:
        print_answers(trained, answered[0], as_json)
    else:
        print_episodes(trained, asked, answered, as_json)
    if csv is not None:
        write_csv(csv, asked, answered)
    if sheet is not None:
        write_sheet(sheet, answered[0])


def list_asked(supports: list[Path], queries: list[Path], folder: Path | None) -> "list[OwnEpisode]":
    """Return the episodes that the command line names.

    Raises:
      UsageError: it names none, or two ways of them.
      DataError: the folder of episodes has none.
    """
    from metarun import errors
    from metarun.finished import own_episodes

    if folder is None:
        return own_episodes.pair_episodes(supports, queries)
    if supports or queries:
        remedy = "leave --support and --query out, or --episodes"
        raise errors.UsageError("a folder of episodes has supports and queries", "--episodes", remedy)
    return own_episodes.list_episodes(folder)


def print_episodes(
    run: "TrainedRun", asked: "list[OwnEpisode]", answered: "list[Answers]", as_json: bool
) -> None:
    """Print a line for each episode, or one JSON object with all predictions."""
    from metarun.cli.text_tables import align
    from metarun.finished import own_episodes
    from metarun.runs import strict_json

    accuracy = own_episodes.summarise(answered)
    if as_json:
        sections = [
            {"episode": episode.name} | answers.facts | {"predictions": answers.records}
            for episode, answers in zip(asked, answered, strict=True)
        ]
        typer.echo(strict_json.encode(describe_run(run) | {"episodes": sections, "accuracy": accuracy}))
        return
    rows = [["episode", "queries", "answers"]]
    for episode, answers in zip(asked, answered, strict=True):
        clauses = [*describe_shots(answers), *describe_trust(answers)]
        rows.append([episode.name, str(len(answers.rows)), "; ".join(clauses)])
    typer.echo(align(rows))
    clauses = [f"{len(asked)} episode{'s' * (len(asked) != 1)}", *describe_learner(run)]
    if accuracy is not None:
        spread = "" if accuracy["ci95"] is None else f" ± {accuracy['ci95']:.4f}"
        count = accuracy["episodes"]
        clauses.append(f"accuracy {accuracy['mean']:.4f}{spread} over {count} episode{'s' * (count != 1)}")
    typer.echo("; ".join(clauses))


def describe_run(run: "TrainedRun") -> dict[str, Any]:
    """Return which learner has answered, ready for JSON."""
    from metarun.finished.opened_run import describe_skipped

    head = {"run": str(run.path), "stage": run.stage, "step": run.step, "mode": run.mode}
    return head | {"inner_steps": run.inner_steps} | describe_skipped(run.skipped)


def print_answers(run: "TrainedRun", answers: "Answers", as_json: bool) -> None:
    """Print a table with what it rests on in the last line, or one JSON object."""
    from metarun.cli.text_tables import align
    from metarun.runs import strict_json

    if as_json:
        typer.echo(strict_json.encode(describe_run(run) | answers.facts | {"predictions": answers.records}))
        return
    rows = [row[: answers.shown] for row in [answers.header, *answers.rows]]
    if run.targets == "classes":
        rows = [rows[0], *([*row[:2], f"{float(row[2]):.4f}"] for row in rows[1:])]
    typer.echo(align(rows))
    typer.echo("; ".join(describe_basis(run, answers)))


def describe_basis(run: "TrainedRun", answers: "Answers") -> list[str]:
    """Say what the answers rest on."""
    return [*describe_shots(answers), *describe_learner(run), *describe_trust(answers)]


def describe_shots(answers: "Answers") -> list[str]:
    """Say how many classes and examples the support has."""
    facts = answers.facts
    if "classes" not in facts:
        return [f"{facts['shots']} shot{'s' * (facts['shots'] != 1)}"]
    low, high = min(facts["shots"]), max(facts["shots"])
    shots = f"{low} shot{'s' * (low != 1)}" if low == high else f"{low} to {high} shots"
    return [f"{len(facts['classes'])} ways, {shots}"]


def describe_learner(run: "TrainedRun") -> list[str]:
    """Say which learner has answered."""
    clauses = [f"stage {run.stage}, step {run.step}"]
    if run.inner_steps is not None:
        clauses.append(f"{run.inner_steps} inner step{'s' * (run.inner_steps != 1)}")
    return [*clauses, f"{run.mode} mode ({MEANINGS[run.mode]})"]


def describe_trust(answers: "Answers") -> list[str]:
    """Say how well the support is told apart, and how many answers are right, if that is known."""
    facts, clauses = answers.facts, []
    if "support" in facts:
        clauses.append(describe_support(facts["support"]))
    if "accuracy" in facts:
        clauses.append(f"accuracy {facts['accuracy']:.4f} of {facts['judged']}, by {facts['judged_by']}")
    return clauses


def write_csv(path: Path, asked: "list[OwnEpisode]", answered: "list[Answers]") -> None:
    """Write all columns, with a header, in UTF-8; those of several episodes with the episode's name in front."""
    from metarun.finished import own_episodes
    from metarun.runs import files

    if len(answered) == 1:
        files.write_csv(path, [answered[0].header, *answered[0].rows])
    else:
        header, rows = own_episodes.join_tables(asked, answered)
        files.write_csv(path, [header, *rows])


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


def refuse_sheet(run: "TrainedRun", episodes: int) -> None:
    """Raise UsageError if the queries are no pictures, or there are several supports."""
    from metarun import base, errors

    if not isinstance(run.form, base.Pictures) or len(run.spec.input_shape) != 3:
        what = "the queries are no pictures, and have no contact sheet"
        raise errors.UsageError(what, "--sheet", "leave --sheet out")
    if episodes > 1:
        what = "a contact sheet shows one episode"
        raise errors.UsageError(what, "--sheet", "leave --sheet out, or give one support")


def write_sheet(path: Path, answers: "Answers") -> None:
    """Write the contact sheet of pictures."""
    from metarun.figures import contact_sheet

    assert answers.sheet is not None  # `refuse_sheet` has seen to it
    contact_sheet.write_sheet(path, answers.sheet)
