"""The files that `metarun embed` writes: vectors, facts and scores."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from metarun.finished import retrieval
from metarun.finished.task_vectors import EmbeddedRun
from metarun.runs import files


def write_files(embedded: EmbeddedRun, report: dict[str, Any], folder: Path) -> list[Path]:
    """Write the vectors (.npz, .csv) and the scores (.json), and return their paths."""
    with files.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    stem = f"{embedded.stage}-{embedded.split}"
    arrays, table, scores = (folder / f"{stem}{suffix}" for suffix in (".npz", ".csv", ".json"))
    files.write_bytes(arrays, pack_arrays(embedded))
    files.write_csv(table, make_rows(embedded))
    files.write_json(scores, report)
    return [arrays, table, scores]


def pack_arrays(embedded: EmbeddedRun) -> bytes:
    """Return the content of the .npz file."""
    tasks = embedded.tasks
    arrays: dict[str, Any] = {
        "vectors": tasks.vectors,
        "clusters": tasks.clusters,
        "similarity": retrieval.measure_similarities(tasks),
        **{f"fact_{name}": values for name, values in sorted(tasks.facts.items())},
    }
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def make_rows(embedded: EmbeddedRun) -> list[list[Any]]:
    """Return a header, then for each task its number, its facts, its cluster if there are clusters, its vector."""
    tasks, clustered = embedded.tasks, embedded.tasks.clusters.shape[1] > 0
    numbers = [f"e{index}" for index in range(tasks.vectors.shape[1])]
    rows: list[list[Any]] = [["task", *tasks.facts, *(["cluster"] if clustered else []), *numbers]]
    for task, vector in enumerate(tasks.vectors):
        cluster = [int(tasks.clusters[task].argmax())] if clustered else []
        facts = name_facts(embedded, task).values()
        rows.append([task, *facts, *cluster, *(f"{value:.9g}" for value in vector)])
    return rows


def name_facts(embedded: EmbeddedRun, task: int) -> dict[str, Any]:
    """Return the facts of one task, by name if their values have names."""
    names = embedded.names
    return {
        name: names[name][int(values[task])] if name in names else values[task].item()
        for name, values in embedded.tasks.facts.items()
    }
