"""Tasks as points in the plane, and the similarity of every two."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarun.figures import canvas
from metarun.finished.projection import project_by_pca, project_by_tsne
from metarun.finished.retrieval import measure_similarities
from metarun.finished.task_vectors import EmbeddedRun

SHOWN_FACTS = 4  # columns of the picture
MARKS = [(f"C{colour}", marker) for marker in "o^" for colour in range(10)]  # of values in a legend, at most
LINED_GROUPS = 40  # groups that lines set apart in the similarity; more would cover it
LABELS = 45  # that fit beside the similarity, one under the other
LONGEST = 24  # letters of a name in a picture


def write_maps(embedded: EmbeddedRun, folder: Path, tsne: bool) -> list[Path]:
    """Write the map and the similarity as PNG, and return their paths."""
    stem = f"{embedded.stage}-{embedded.split}"
    planes = {"PCA": project_by_pca(embedded.tasks.vectors)}
    if tsne:
        planes["t-SNE"] = project_by_tsne(embedded.tasks.vectors)
    shown = choose_facts(embedded)
    size = (1 + 4.2 * max(len(shown), 1), 0.6 + 3.8 * len(planes))
    points, squares = folder / f"{stem}-map.png", folder / f"{stem}-similarity.png"
    canvas.write_figure(points, lambda figure: draw_map(figure, embedded, planes, shown), size)
    similarity = measure_similarities(embedded.tasks)
    canvas.write_figure(
        squares, lambda figure: draw_similarity(figure, embedded, similarity, shown[:1]), (7.0, 6.0)
    )
    return [points, squares]


def choose_facts(embedded: EmbeddedRun) -> list[str]:
    """Return the facts that differ between tasks, at most SHOWN_FACTS: those with names and whole numbers first."""
    differing = [name for name, values in embedded.tasks.facts.items() if len(np.unique(values)) > 1]
    kinds = embedded.tasks.facts
    return sorted(differing, key=lambda name: (name not in embedded.names, kinds[name].dtype.kind == "f"))[
        :SHOWN_FACTS
    ]


def draw_map(figure, embedded: EmbeddedRun, planes: Mapping[str, np.ndarray], shown: list[str]) -> None:
    """Draw a point for each task, in a row for each projection and a column for each fact."""
    grid = figure.subplots(len(planes), max(len(shown), 1), squeeze=False)
    for row, (projection, points) in zip(grid, planes.items(), strict=True):
        for axes, name in zip(row, shown or [""], strict=True):
            draw_points(axes, points, embedded, name)
            axes.set(title=f"{projection}, by {name}" if name else projection, xticks=[], yticks=[])
    title = f"{len(embedded.tasks.vectors)} tasks of the {embedded.split} split, as stage {embedded.stage} sees them"
    figure.suptitle(title, wrap=True)


def draw_points(axes, points: np.ndarray, embedded: EmbeddedRun, name: str) -> None:
    """Draw points coloured by a fact: a colour for each of its values, or a scale of colours."""
    if not name:
        axes.scatter(*points.T, s=9)
        return
    values = embedded.tasks.facts[name]
    distinct = np.unique(values)
    if values.dtype.kind == "f":
        marks = axes.scatter(*points.T, c=values, s=9, cmap="viridis")
        axes.figure.colorbar(marks, ax=axes)
        return
    if len(distinct) > len(MARKS):
        axes.scatter(*points.T, c=np.searchsorted(distinct, values) % 20, s=9, cmap="tab20")
        axes.set_xlabel(f"{len(distinct)} values, in turns of 20 colours")
        return
    labels = name_values(embedded, name, distinct)
    for value, label, (colour, marker) in zip(distinct, labels, MARKS, strict=False):
        axes.scatter(*points[values == value].T, s=9, label=label, color=colour, marker=marker)
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
    axes.legend(**beside, frameon=False, fontsize=8, markerscale=2, labelspacing=0.3)


def name_values(embedded: EmbeddedRun, name: str, values: np.ndarray) -> list[str]:
    """Return what values of a fact are called in a picture, at most LONGEST letters each."""
    labels = [embedded.names[name][int(value)] if name in embedded.names else f"{value}" for value in values]
    half = LONGEST // 2  # names are told apart at the end as often as at the beginning
    return [label if len(label) <= LONGEST else f"{label[: half - 1]}…{label[-half:]}" for label in labels]


def draw_similarity(figure, embedded: EmbeddedRun, similarity: np.ndarray, shown: list[str]) -> None:
    """Draw the cosine of every two tasks, in the order of a fact and, within it, of the first principal component."""
    axes = figure.subplots()
    values = embedded.tasks.facts[shown[0]] if shown else np.arange(len(similarity))
    order = np.lexsort((project_by_pca(embedded.tasks.vectors)[:, 0], values))
    squares = axes.imshow(
        similarity[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest"
    )
    figure.colorbar(squares, ax=axes, label="cosine")
    title = f"tasks in the order of {shown[0]}" if shown else "tasks"
    axes.set(title=title, xticks=[], yticks=[])
    if shown and values.dtype.kind != "f":
        distinct, starts, counts = np.unique(values[order], return_index=True, return_counts=True)
        middles = starts + (counts - 1) / 2
        kept = choose_labels(middles, counts, len(similarity) / LABELS)
        axes.set_yticks(middles[kept], name_values(embedded, shown[0], distinct[kept]), fontsize=8)
        for start in starts[1:] if len(distinct) <= LINED_GROUPS else ():
            axes.axhline(start - 0.5, color="black", linewidth=0.5)
            axes.axvline(start - 0.5, color="black", linewidth=0.5)


def choose_labels(places: np.ndarray, sizes: np.ndarray, room: float) -> np.ndarray:
    """Return which of the rising places get a label: at least `room` apart, those of the largest groups first."""
    kept: list[int] = []
    for index in np.argsort(-sizes, kind="stable"):
        if all(abs(places[index] - places[other]) >= room for other in kept):
            kept.append(int(index))
    return np.array(sorted(kept))
