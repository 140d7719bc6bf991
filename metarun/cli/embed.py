"""`metarun embed`: vectors of tasks to files and pictures, scores to a table, and the tasks that one's own is like."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import typer

from metarun import base, embedding, errors, prediction
from metarun.cli import predict
from metarun.cli.tables import aligned, spoken
from metarun.data import examples
from metarun.embedding import EmbeddedRun
from metarun.runs import files, pictures

SHOWN_FACTS = 4  # columns of the picture
NAMED_VALUES = 10  # of a fact in a legend; more could not be told apart by colour


def refuse_distance(distance: str) -> None:
    """Raise UsageError for a distance that there is not."""
    known = get_args(embedding.Distance)
    if distance not in known:
        raise errors.UsageError(f"there is no distance {distance}", "--distance", f"use {' or '.join(known)}")


def report(found: EmbeddedRun, distance: str) -> dict[str, Any]:
    """What is printed, and written beside the vectors."""
    count, dimensions = found.tasks.vectors.shape
    return {
        "run": str(found.path),
        "stage": found.stage,
        "step": found.step,
        "split": found.split,
        "tasks": count,
        "dimensions": dimensions,
        "distance": distance,
        "retrieval": embedding.scores(found.tasks, distance),
    }


def neighbours(
    path: Path, found: EmbeddedRun, support: Path, count: int, distance: str, overrides: list[str]
) -> dict[str, Any]:
    """{"support", "nearest"}: the known tasks that a support of somebody's own is like, with their facts.

    Raises:
      MetarunError: what is wrong with the examples.
    """
    run = prediction.load(path, stage=found.stage, overrides=overrides)
    learner: Any = run.adapt(read_support(run, support)).state
    rows = [
        {"task": task, "distance": apart, "facts": facts_of(found, task)}
        for task, apart in embedding.nearest(found.tasks, np.asarray(learner.embedding), count, distance)
    ]
    return {"support": str(support), "nearest": rows}


def read_support(run: prediction.TrainedRun, support: Path) -> base.Examples:
    """Class folders of pictures, a CSV file of inputs and targets, or pairs of sentences, as of `metarun predict`."""
    form, shape = run.form, run.spec.input_shape
    if isinstance(form, base.Pictures):
        classes = examples.list_classes(support)
        labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(part) for part in classes.values()])
        found = [file for part in classes.values() for file in part]
        size: Any = shape
        return base.Examples(examples.read_pictures(found, size, form.inverted), labels)
    if isinstance(form, base.Sentences):
        pairs = examples.read_pairs(support)
        return predict.encoded(form, [pair[0] for pair in pairs], [pair[1] for pair in pairs], str(support))
    columns, labelled = int(np.prod(shape)), run.kind == "classes"
    table = examples.read_table(support, columns + (0 if labelled else run.spec.output_size), labelled)
    inputs = table.numbers[:, :columns].reshape(-1, *shape)
    if not labelled:
        return base.Examples(inputs, table.numbers[:, columns:])
    names = sorted(set(table.labels))
    return base.Examples(inputs, np.array([names.index(label) for label in table.labels], np.int32))


def facts_of(found: EmbeddedRun, task: int) -> dict[str, Any]:
    """The facts of one task, by name where their values have names."""
    return {
        name: found.names[name][int(values[task])] if name in found.names else values[task].item()
        for name, values in found.tasks.facts.items()
    }


def write(found: EmbeddedRun, summary: dict[str, Any], distance: str, folder: Path, tsne: bool) -> list[str]:
    """Write the vectors (.npz, .csv), the scores (.json) and the pictures (.png); returns their paths."""
    with files.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    stem = f"{found.stage}-{found.split}"
    paths = {
        kind: folder / f"{stem}{kind}" for kind in (".npz", ".csv", ".json", "-map.png", "-similarity.png")
    }
    tasks, alike = found.tasks, embedding.similarities(found.tasks)
    planes = {"PCA": embedding.in_plane(tasks.vectors)}
    if tsne:
        planes["t-SNE"] = embedding.by_tsne(tasks.vectors)
    facts = {f"fact_{name}": values for name, values in sorted(tasks.facts.items())}
    content = io.BytesIO()
    arrays: dict[str, Any] = {
        "vectors": tasks.vectors,
        "clusters": tasks.clusters,
        "similarity": alike,
        **facts,
    }
    np.savez(content, **arrays)
    files.write_bytes(paths[".npz"], content.getvalue())
    files.write_text(paths[".csv"], as_csv(found))
    files.write_json(paths[".json"], summary)
    shown = shown_facts(found)
    size = (1 + 4.2 * max(len(shown), 1), 0.6 + 3.8 * len(planes))
    pictures.write_figure(paths["-map.png"], lambda figure: draw_map(figure, found, planes, shown), size)
    pictures.write_figure(
        paths["-similarity.png"], lambda figure: draw_similarity(figure, found, alike, shown[:1]), (7.0, 6.0)
    )
    return [str(path) for path in paths.values()]


def as_csv(found: EmbeddedRun) -> str:
    """A line a task: its number, its facts, its cluster where there are some, its vector."""
    tasks, clustered = found.tasks, found.tasks.clusters.shape[1] > 0
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    numbers = [f"e{index}" for index in range(tasks.vectors.shape[1])]
    out.writerow(["task", *tasks.facts, *(["cluster"] if clustered else []), *numbers])
    for task, vector in enumerate(tasks.vectors):
        cluster = [int(tasks.clusters[task].argmax())] if clustered else []
        out.writerow([task, *facts_of(found, task).values(), *cluster, *(f"{value:.9g}" for value in vector)])
    return text.getvalue()


def shown_facts(found: EmbeddedRun) -> list[str]:
    """The facts that differ between tasks, those with names and whole numbers first."""
    differing = [name for name, values in found.tasks.facts.items() if len(np.unique(values)) > 1]
    kinds = found.tasks.facts
    return sorted(differing, key=lambda name: (name not in found.names, kinds[name].dtype.kind == "f"))[
        :SHOWN_FACTS
    ]


def draw_map(figure, found: EmbeddedRun, planes: Mapping[str, np.ndarray], shown: list[str]) -> None:
    """A row a projection, a column a fact, a point a task."""
    grid = figure.subplots(len(planes), max(len(shown), 1), squeeze=False)
    for row, (projection, points) in zip(grid, planes.items(), strict=True):
        for axes, name in zip(row, shown or [""], strict=True):
            draw_points(axes, points, found, name)
            axes.set(title=f"{projection}, by {name}" if name else projection, xticks=[], yticks=[])
    figure.suptitle(
        f"{len(found.tasks.vectors)} tasks of the {found.split} split, as stage {found.stage} sees them"
    )


def draw_points(axes, points: np.ndarray, found: EmbeddedRun, name: str) -> None:
    """Points coloured by a fact: by colours of its values, or along a scale."""
    if not name:
        axes.scatter(*points.T, s=9)
        return
    values = found.tasks.facts[name]
    known = np.unique(values)
    if values.dtype.kind == "f":
        drawn = axes.scatter(*points.T, c=values, s=9, cmap="viridis")
        axes.figure.colorbar(drawn, ax=axes)
        return
    if len(known) > NAMED_VALUES:
        axes.scatter(*points.T, c=np.searchsorted(known, values) % 20, s=9, cmap="tab20")
        axes.set_xlabel(f"{len(known)} values, in turns of 20 colours")
        return
    for value in known:
        label = found.names[name][int(value)] if name in found.names else f"{value}"
        axes.scatter(*points[values == value].T, s=9, label=label)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8, markerscale=2)


def draw_similarity(figure, found: EmbeddedRun, alike: np.ndarray, shown: list[str]) -> None:
    """The cosine of every two tasks, in the order of a fact and, within it, of the first principal component."""
    axes = figure.subplots()
    values = found.tasks.facts[shown[0]] if shown else np.arange(len(alike))
    order = np.lexsort((embedding.in_plane(found.tasks.vectors)[:, 0], values))
    drawn = axes.imshow(alike[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    figure.colorbar(drawn, ax=axes, label="cosine")
    title = f"tasks in the order of {shown[0]}" if shown else "tasks"
    axes.set(title=title, xticks=[], yticks=[])
    if shown and values.dtype.kind != "f":
        known, starts, counts = np.unique(values[order], return_index=True, return_counts=True)
        names = [
            found.names[shown[0]][int(value)] if shown[0] in found.names else f"{value}" for value in known
        ]
        axes.set_yticks(starts + counts / 2, names, fontsize=8)
        for start in starts[1:]:
            axes.axhline(start - 0.5, color="black", linewidth=0.5)
            axes.axvline(start - 0.5, color="black", linewidth=0.5)


def print_report(summary: dict[str, Any]) -> None:
    """The scores, the tasks that one's own is like, and where the files are."""
    retrieval = summary["retrieval"]
    if retrieval:
        names = ["embedding", "raw", "random", "above_raw"]
        header = ["nearest task shares", "embedding", "raw support", "random", "embedding − raw"]
        rows = [[fact, *(spoken(found[name]) for name in names)] for fact, found in retrieval.items()]
        typer.echo(aligned([header, *rows]))
    else:
        typer.echo("no fact is one number a task and differs between tasks: there is nothing to retrieve")
    if "nearest" in summary:
        facts = list(summary["nearest"][0]["facts"])
        rows = [
            [f"{each['task']}", f"{each['distance']:.4g}", *(shortly(each["facts"][name]) for name in facts)]
            for each in summary["nearest"]
        ]
        typer.echo(aligned([["nearest task", "distance", *facts], *rows]))
    typer.echo(
        f"{summary['tasks']} {summary['split']} tasks, stage {summary['stage']}, step {summary['step']}, "
        f"{summary['dimensions']} dimensions, {summary['distance']} distance; mean ± 95 % confidence interval"
    )
    for path in summary["files"]:
        typer.echo(path)


def shortly(value: Any) -> str:
    """A fact in a table."""
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
