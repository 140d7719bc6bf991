"""`metarun embed`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from metarun.cli.arguments import AllowOlder, EvaluationOverrides, Json, RunPath, Split

if TYPE_CHECKING:
    from metarun.finished.opened_run import OpenedRun
    from metarun.finished.task_vectors import EmbeddedRun


def embed(
    run: RunPath,
    overrides: EvaluationOverrides = None,
    stage: Annotated[
        str | None, typer.Option(help="A stage that embeds tasks. Default: the last one.")
    ] = None,
    split: Split = None,
    tasks: Annotated[int, typer.Option(min=2, max=10_000, help="How many frozen tasks.")] = 400,
    distance: Annotated[
        str, typer.Option(help="Distance of two vectors: euclidean or cosine.")
    ] = "euclidean",
    support: Annotated[
        Path | None,
        typer.Option(help="A support of your own, as in predict: name the tasks that it is like."),
    ] = None,
    nearest: Annotated[int, typer.Option(min=1, help="How many known tasks are named for --support.")] = 5,
    tsne: Annotated[bool, typer.Option("--tsne", help="Draw t-SNE too; needs metarun[embed].")] = False,
    out: Annotated[Path | None, typer.Option(help="A folder for the files. Default: RUN/embeddings.")] = None,
    allow_older: AllowOlder = False,
    as_json: Json = False,
) -> None:
    """Write tasks as vectors, and score their neighbours.

    It writes files and pictures, and says how often the nearest task shares a fact, such as the kind of task.
    """
    from metarun.cli import progress_display, text_tables
    from metarun.finished.finished_run import find_run

    finished = find_run(run, overrides or [], stage=stage, split=split, allow_older=allow_older)
    from metarun.figures import vector_map
    from metarun.finished import embedding_files, opened_run, task_vectors

    refuse_distance(distance)
    with progress_display.show_preparation():
        opened = opened_run.open_run(finished)
        embedded = task_vectors.embed(opened, tasks)
    report = make_report(embedded, distance) | opened_run.describe_skipped(opened.skipped)
    if support is not None:
        report |= find_neighbours(opened, embedded, support, nearest, distance)
    folder = out or embedded.path / "embeddings"
    paths = embedding_files.write_files(embedded, report, folder)
    paths += vector_map.write_maps(embedded, folder, tsne)
    report |= {"files": [str(path) for path in paths]}
    text_tables.print_either(report, as_json, print_report)


def refuse_distance(distance: str) -> None:
    """Raise UsageError for a distance that does not exist."""
    from metarun import errors
    from metarun.finished import retrieval

    distances = get_args(retrieval.Distance)
    if distance not in distances:
        raise errors.UsageError(
            f"there is no distance {distance}", "--distance", f"use {' or '.join(distances)}"
        )


def make_report(embedded: "EmbeddedRun", distance: str) -> dict[str, Any]:
    """Return what is printed, and written beside the vectors."""
    from metarun.finished import retrieval

    count, dimensions = embedded.tasks.vectors.shape
    return {
        "run": str(embedded.path),
        "stage": embedded.stage,
        "step": embedded.step,
        "split": embedded.split,
        "tasks": count,
        "dimensions": dimensions,
        "distance": distance,
        "retrieval": retrieval.score_retrieval(embedded.tasks, distance),
    }


def find_neighbours(
    run: "OpenedRun",
    embedded: "EmbeddedRun",
    support: Path,
    count: int,
    distance: str,
) -> dict[str, Any]:
    """Return {"support", "nearest"}: the frozen tasks that somebody's own support is like, with their facts.

    Raises:
      MetarunError: what is wrong with the examples, or DivergedError: their vector is not finite.
    """
    import numpy as np

    from metarun import errors
    from metarun.finished import embedding_files, own_support, prediction, retrieval

    trained = prediction.TrainedRun.take_first(run)
    learner: Any = trained.adapt(own_support.read_support(trained, support).examples).state
    vector = np.asarray(learner.embedding)
    if not np.isfinite(vector).all():
        raise errors.DivergedError(
            "the vector of the support has numbers that are not finite",
            str(support),
            "look for examples that are far from those of the training",
        )
    rows = [
        {"task": task, "distance": apart, "facts": embedding_files.name_facts(embedded, task)}
        for task, apart in retrieval.find_nearest(embedded.tasks, vector, count, distance)
    ]
    return {"support": str(support), "nearest": rows}


def print_report(report: dict[str, Any]) -> None:
    """Print the scores, the tasks that somebody's own is like, and where the files are."""
    from metarun.cli.text_tables import align, format_interval

    if report["retrieval"]:
        names = ["embedding", "raw", "random", "above_raw"]
        header = ["nearest task shares", "embedding", "raw support", "random", "embedding − raw"]
        rows = [
            [fact, *(format_interval(scores[name]) for name in names)]
            for fact, scores in report["retrieval"].items()
        ]
        typer.echo(align([header, *rows]))
        for fact, scores in report["retrieval"].items():
            if scores["apart"]:
                asked = f"{scores['queries']} tasks are asked for"
                typer.echo(f"{fact}: tasks that share a class are not each other's neighbours; {asked}")
    else:
        typer.echo("no fact is one number a task and differs between tasks: there is nothing to retrieve")
    if "nearest" in report:
        facts = list(report["nearest"][0]["facts"])
        rows = [
            [f"{row['task']}", f"{row['distance']:.4g}", *(format_fact(row["facts"][name]) for name in facts)]
            for row in report["nearest"]
        ]
        typer.echo(align([["nearest task", "distance", *facts], *rows]))
    typer.echo(
        f"{report['tasks']} {report['split']} tasks, stage {report['stage']}, step {report['step']}, "
        f"{report['dimensions']} dimensions, {report['distance']} distance; mean ± 95 % confidence interval"
    )
    for path in report["files"]:
        typer.echo(path)


def format_fact(value: Any) -> str:
    """Return a fact for a table."""
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
