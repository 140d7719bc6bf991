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
MARKS = [(f"C{colour}", marker) for marker in "o^" for colour in range(10)]  # of values in a legend, at most
LINED_GROUPS = 40  # parts of the similarity that are set apart by lines; more would cover it
LABELS = 45  # that fit beside the similarity, one under the other
LONGEST = 24  # letters of a name in a picture


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
      MetarunError: what is wrong with the examples, or DivergedError: their vector is not finite.
    """
    run = prediction.load(path, stage=found.stage, overrides=overrides)
    learner: Any = run.adapt(read_support(run, support)).state
    vector = np.asarray(learner.embedding)
    if not np.isfinite(vector).all():
        raise errors.DivergedError(
            "the vector of the support has numbers that are not finite",
            str(support),
            "look for examples that are far from those of the training",
        )
    rows = [
        {"task": task, "distance": apart, "facts": facts_of(found, task)}
        for task, apart in embedding.nearest(found.tasks, vector, count, distance)
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
    title = f"{len(found.tasks.vectors)} tasks of the {found.split} split, as stage {found.stage} sees them"
    figure.suptitle(title, wrap=True)


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
    if len(known) > len(MARKS):
        axes.scatter(*points.T, c=np.searchsorted(known, values) % 20, s=9, cmap="tab20")
        axes.set_xlabel(f"{len(known)} values, in turns of 20 colours")
        return
    for value, label, (colour, marker) in zip(known, value_names(found, name, known), MARKS, strict=False):
        axes.scatter(*points[values == value].T, s=9, label=label, color=colour, marker=marker)
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
    axes.legend(**beside, frameon=False, fontsize=8, markerscale=2, labelspacing=0.3)


def value_names(found: EmbeddedRun, name: str, values: np.ndarray) -> list[str]:
    """What values of a fact are called in a picture, at most LONGEST letters each."""
    known = [found.names[name][int(value)] if name in found.names else f"{value}" for value in values]
    half = LONGEST // 2  # names are told apart at the end as often as at the beginning
    return [label if len(label) <= LONGEST else f"{label[: half - 1]}…{label[-half:]}" for label in known]


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
        middles = starts + (counts - 1) / 2
        kept = with_room(middles, counts, len(alike) / LABELS)
        axes.set_yticks(middles[kept], value_names(found, shown[0], known[kept]), fontsize=8)
        for start in starts[1:] if len(known) <= LINED_GROUPS else ():
            axes.axhline(start - 0.5, color="black", linewidth=0.5)
            axes.axvline(start - 0.5, color="black", linewidth=0.5)


def with_room(places: np.ndarray, sizes: np.ndarray, room: float) -> np.ndarray:
    """Which of the rising places get a label: `room` apart at least, those of the largest groups first."""
    kept: list[int] = []
    for index in np.argsort(-sizes, kind="stable"):
        if all(abs(places[index] - places[other]) >= room for other in kept):
            kept.append(int(index))
    return np.array(sorted(kept))


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
