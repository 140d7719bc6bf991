"""`metarun fewshot`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarun.cli import completion
from metarun.cli.arguments import Json, Polarity, Truth

if TYPE_CHECKING:
    from metarun.fewshot.outcome import Judgement, Outcome

SHOWN = 30  # answers on the terminal; the files have all
WIDEST = 12  # classes of a confusion matrix on the terminal
NAMED = 5  # files that could not be read


def fewshot(
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[QUERY]...", help="More pictures to name.")
    ] = None,
    support: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of class folders, or a CSV file `file,label`. Several are joined."),
    ] = None,
    query: Annotated[list[Path] | None, typer.Option(help="Pictures to name, or a folder of them.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A backbone: a .safetensors file; see docs/backbones.md. With --run: where its file lies now."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="A run on pictures in place of a backbone.", autocompletion=completion.complete_run
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Its network, if the file does not say; alone: random weights.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="centroid, logistic, or learner: that of --run. Default: learner with --run, else centroid.",
            autocompletion=completion.complete_word("centroid", "logistic", "learner"),
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="A CSV file for your labels: read as support, and filled up with what to label."),
    ] = None,
    count: Annotated[
        int, typer.Option("--next", min=0, max=1000, help="How many pictures to suggest for a label.")
    ] = 10,
    truth: Truth = None,
    polarity: Polarity = "auto",
    as_json: Json = False,
    csv: Annotated[Path | None, typer.Option(help="Write the answers as CSV.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the pictures, one HTML file.")] = None,
) -> None:
    """Name pictures after a few labelled ones, without any training.

    It says how often the labelled pictures are named rightly if each is left out, which pictures are of no class, and
    which to label next. Features are computed once and kept: call it again with more labels.
    """
    from metarun.cli import progress_display

    refuse_page(html)
    from metarun.fewshot import classification, feature_source

    request = classification.Request(
        supports=tuple(support or ()),
        queries=(*(query or ()), *(more or ())),
        method=method or ("learner" if run is not None else None),
        labels=labels,
        truth=truth,
        count=count,
        polarity=polarity,
    )
    with progress_display.show_preparation():
        source = feature_source.choose(weights, run, model)
        outcome = classification.classify(request, source)
    write_files(outcome, labels, csv, html)
    print_outcome(outcome, as_json, labels)


def refuse_page(html: Path | None) -> None:
    """Raise UsageError if a page may not be written there, before anything is computed."""
    if html is not None:
        from metarun.reports import fewshot_page

        fewshot_page.refuse_place(html)


def write_files(outcome: "Outcome", labels: Path | None, csv: Path | None, html: Path | None) -> None:
    """Write the files that are asked for."""
    from metarun.fewshot import labels_to_give, summary
    from metarun.runs import files

    if labels is not None:
        labels_to_give.write(labels, outcome)
    if csv is not None:
        files.write_csv(csv, [summary.HEADER, *summary.list_rows(outcome)])
    if html is not None:
        from metarun.reports import fewshot_page

        fewshot_page.write(html, outcome)


def print_outcome(outcome: "Outcome", as_json: bool, labels: Path | None) -> None:
    """Print what came out for people, or as one JSON object. Notes go to stderr."""
    from metarun.fewshot import summary
    from metarun.runs import strict_json

    for note in outcome.notes:
        typer.echo(f"note: {summary.escape(note)}", err=True)
    if as_json:
        typer.echo(strict_json.encode(summary.describe(outcome)))
        return
    print_predictions(outcome)
    if outcome.judgement is not None:
        print_confusions(outcome.judgement, outcome.classes)
    print_next(outcome, labels)
    if outcome.judgement is not None:
        typer.echo("; ".join(describe_basis(outcome, outcome.judgement)))
    if outcome.skipped:
        names = [f"{file} ({fault})" for file, fault in outcome.skipped[:NAMED]]
        names += [f"and {len(outcome.skipped) - NAMED:,} more"] * (len(outcome.skipped) > NAMED)
        typer.echo(f"skipped: {summary.escape(', '.join(names))}")


def print_predictions(outcome: "Outcome") -> None:
    """Print the first answers."""
    from metarun.cli.text_tables import align
    from metarun.fewshot import summary

    rows = summary.list_rows(outcome)
    if not rows:
        return
    cells = [
        [file, name, f"{float(share):.4f}", f"{second} {float(second_share):.4f}", unknown.replace("no", "")]
        for file, name, share, second, second_share, _, unknown, *_ in rows[:SHOWN]
    ]
    typer.echo(align([["file", "class", "probability", "else", "unknown"], *cells]))
    if len(rows) > SHOWN:
        typer.echo(f"… and {len(rows) - SHOWN:,} more: --csv, --json and --html give all")
    typer.echo()


def print_confusions(judgement: "Judgement", classes: tuple[str, ...]) -> None:
    """Print the confusion matrix of the support, or its largest entries."""
    from metarun.cli.text_tables import align
    from metarun.fewshot import left_out

    if judgement.share is None or judgement.share.right == judgement.share.asked:
        return
    typer.echo("the labelled pictures, each left out in turn:")
    if len(classes) > WIDEST:
        for entry in left_out.list_mistakes(judgement.confusions):
            typer.echo(align([[f"{entry['count']} of {entry['class']} named {entry['answered']}"]]))
        typer.echo()
        return
    counts = {(entry["class"], entry["answered"]): str(entry["count"]) for entry in judgement.confusions}
    rows = [[name, *(counts.get((name, other), "") for other in classes)] for name in classes]
    typer.echo(align([["true, answered", *classes], *rows]) + "\n")


def print_next(outcome: "Outcome", labels: Path | None) -> None:
    """Print the pictures that are worth a label next, with their likeliest classes."""
    from metarun.cli.text_tables import align
    from metarun.fewshot import labels_to_give, summary

    if not outcome.next:
        return
    known = {one.file: one.best[:2] for one in outcome.predictions}
    rows = [
        [f"  {summary.show(file)}", ", ".join(map(labels_to_give.format_share, known.get(file, [])))]
        for file in outcome.next
    ]
    where = "--labels FILE makes a list for it" if labels is None else f"write classes into {labels}"
    typer.echo(f"label these next ({where}, and call this again):\n{align(rows)}\n")


def describe_basis(outcome: "Outcome", judgement: "Judgement") -> list[str]:
    """Say what the answers rest on, and what they are worth."""
    from metarun.fewshot import summary

    low, high = min(outcome.shots), max(outcome.shots)
    shots = f"{low}" if low == high else f"{low} to {high}"
    clauses = [f"{len(outcome.classes)} classes, {shots} shot{'s' * (high != 1)}"]
    clauses.append(
        f"{outcome.method} on {summary.escape(outcome.source.label)}, {outcome.dimensions} features"
    )
    clauses += describe_judgement(judgement)
    if outcome.expected_accuracy is not None:
        clauses.append(f"expected accuracy of these answers {outcome.expected_accuracy:.4f}")
    if outcome.accuracy is not None:
        low_end, high_end = outcome.accuracy.interval
        ends = f"[{low_end:.4f}, {high_end:.4f}]"
        clauses.append(f"accuracy {outcome.accuracy.accuracy:.4f} {ends} of {outcome.accuracy.asked}")
    if (strangers := outcome.strangers) is not None:
        clauses.append(f"{strangers.right} of {strangers.asked} of other classes found unknown")
    return clauses


def describe_judgement(judgement: "Judgement") -> list[str]:
    """Say how far the answers can be trusted, by the support alone."""
    clauses = []
    if judgement.share is None:
        clauses.append(f"left out: {judgement.how}, so probabilities are not calibrated")
    else:
        low, high = judgement.share.interval
        share = f"{judgement.share.accuracy:.4f} [{low:.4f}, {high:.4f}] of {judgement.share.asked}"
        clauses.append(f"support: {share} named rightly, left out {judgement.how}")
    if (threshold := judgement.threshold) is not None:
        error = f"expected to be wrong for {100 * threshold.expected_error:.0f} %"
        if threshold.is_useful:
            clauses.append(f"unknown beyond a squared distance of {threshold.distance:.4f}, {error}")
        else:
            clauses.append(f"nothing is called unknown: that is {error}")
    return clauses
