"""`metarun embed` and what it rests on: retrieval by the nearest task, its baselines, the files and the pictures."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from helpers.commands import assert_three_lines
from helpers.runs import train
from metarun import base, errors
from metarun.evaluation import episodes
from metarun.figures import vector_map
from metarun.finished import embedding_files, projection, retrieval, task_vectors
from metarun.finished.finished_run import find_run
from metarun.finished.opened_run import open_run
from metarun.finished.task_vectors import EmbeddedRun, TaskVectors

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")
RUN = """
task: {name: mixture, modes: [sinusoid, line], shots: 4, queries: 4}
stages:
  - name: maml
    model: {name: mlp, hidden: [8]}
    algorithm: {name: maml}
    training: {steps: 2, tasks_per_step: 4}
  - name: embedding
    model: {name: mlp, hidden: [8]}
    algorithm: {name: task_embedding, source: adapted, dimensions: 3, clusters: 2}
    training: {steps: 1, tasks_per_step: 16}
evaluation: {episodes: 6}
accelerator: {platform: cpu, devices: 1}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("embedded") / "run", RUN)


@pytest.fixture(scope="module")
def embedded(run) -> EmbeddedRun:
    return task_vectors.embed(open_run(find_run(run)), 40)


def make_vectors(vectors: Any, raw: Any = None, **facts: Any) -> TaskVectors:
    """Make tasks without clusters."""
    vectors = np.asarray(vectors, np.float32)
    values = {name: np.asarray(value) for name, value in facts.items()}
    return TaskVectors(
        vectors,
        np.zeros((len(vectors), 0), np.float32),
        vectors if raw is None else np.asarray(raw, np.float32),
        values,
    )


# Retrieval


def test_the_nearest_task_is_never_the_task_itself():
    shares = retrieval.match_nearest(np.array([[0.0], [1.0], [1.2]]), np.array([0, 0, 1]), "euclidean")
    np.testing.assert_array_equal(shares, [True, False, False])


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_distances_are_those_of_every_pair_one_by_one(distance):
    generator = np.random.default_rng(0)
    left, right = generator.standard_normal((5, 3)), generator.standard_normal((4, 3))
    for i, j in np.ndindex(5, 4):
        cosine = left[i] @ right[j] / np.linalg.norm(left[i]) / np.linalg.norm(right[j])
        expected = np.linalg.norm(left[i] - right[j]) if distance == "euclidean" else 1 - cosine
        np.testing.assert_allclose(
            retrieval.measure_distances(left, right, distance)[i, j], expected, rtol=1e-9
        )


def test_vectors_that_tell_the_kind_retrieve_all_and_random_ones_as_many_as_chance():
    kind = np.random.default_rng(1).integers(0, 4, 600)
    scores = retrieval.score_retrieval(
        make_vectors(np.eye(4)[kind], raw=np.ones((600, 2)), kind=kind), "euclidean"
    )["kind"]
    assert scores["embedding"]["mean"] == 1
    counts = np.bincount(kind)
    chance = np.sum(counts * (counts - 1)) / (600 * 599)
    assert abs(scores["random"]["mean"] - chance) < 2 * scores["random"]["ci95"]
    paired = scores["embedding"]["mean"] - scores["raw"]["mean"]
    np.testing.assert_allclose(scores["above_raw"]["mean"], paired)


def test_tasks_that_share_a_class_are_no_neighbours_and_tasks_without_another_are_not_asked_for():
    """Each task lies nearest to the one that it shares class 1 with; the last one's kind has no other task."""
    tasks = make_vectors([[0.0], [0.1], [-1.0], [5.0], [9.0]], kind=[0, 1, 0, 1, 2])
    classes = np.array([[0, 1], [1, 2], [3, 4], [5, 6], [7, 8]])
    np.testing.assert_array_equal(
        retrieval.find_shared(classes), np.eye(5, dtype=bool) | (np.add.outer(range(5), range(5)) == 1)
    )
    apart = retrieval.score_retrieval(tasks._replace(classes=classes), "euclidean")["kind"]
    assert (apart["apart"], apart["queries"], apart["embedding"]["mean"]) == (True, 4, 0.5)
    whole = retrieval.score_retrieval(tasks, "euclidean")["kind"]
    assert (whole["apart"], whole["queries"], whole["embedding"]["mean"]) == (False, 5, 0.2)


def test_a_fact_that_says_which_classes_a_task_has_is_scored_over_all_pairs():
    tasks = make_vectors([[0.0], [0.1], [5.0], [5.1]], kind=[0, 0, 1, 1])
    tasks = tasks._replace(classes=np.array([[0, 1], [0, 1], [2, 3], [2, 3]]))
    scores = retrieval.score_retrieval(tasks, "euclidean")["kind"]
    assert (scores["apart"], scores["queries"], scores["embedding"]["mean"]) == (False, 4, 1.0)


def test_a_character_is_the_class_however_it_is_turned():
    facts = {"class": np.array([[0, 5], [9, 1]]), "character": np.array([[0, 1], [1, 2]])}
    np.testing.assert_array_equal(task_vectors.select_classes(facts), facts["character"])
    np.testing.assert_array_equal(task_vectors.select_classes({"class": facts["class"]}), facts["class"])
    assert task_vectors.select_classes({"mode": np.zeros(2)}) is task_vectors.select_classes(()) is None


def test_a_fact_that_is_a_number_counts_as_the_same_within_a_fifth_of_the_tasks():
    values = np.random.default_rng(0).uniform(-1, 1, 100).astype(np.float32)
    labels = retrieval.classify_fact(values)
    np.testing.assert_array_equal(np.bincount(labels), [20] * 5)
    assert all(values[labels == index].max() <= values[labels == index + 1].min() for index in range(4))


def test_a_fact_of_every_way_counts_where_all_ways_share_it():
    facts = {
        "alphabet": np.array([[3, 3], [5, 5]]),
        "class": np.array([[0, 1], [2, 3]]),
        "mode": np.array([1, 0]),
    }
    assert {name: values.tolist() for name, values in task_vectors.select_scalar_facts(facts).items()} == {
        "alphabet": [3, 5],
        "mode": [1, 0],
    }


def test_a_fact_that_all_tasks_share_is_not_retrieved():
    assert retrieval.score_retrieval(make_vectors(np.eye(3), kind=np.zeros(3, int)), "euclidean") == {}


def test_the_raw_support_of_numbers_does_not_depend_on_the_order_of_its_examples():
    inputs, targets = np.array([[2.0], [1.0]], np.float32), np.array([[5.0], [6.0]], np.float32)
    spec = base.Spec((1,), 1, "numbers")
    for order in (slice(None), slice(None, None, -1)):
        support = base.Examples(inputs[order], targets[order])
        np.testing.assert_array_equal(task_vectors.flatten_support(support, spec), [1, 6, 2, 5])


def test_the_plane_is_that_of_the_greatest_variance():
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((50, 4)) * np.array([0.1, 5.0, 0.2, 3.0])
    plane = projection.project_by_pca(vectors)
    variances = np.linalg.eigvalsh(np.cov(vectors.T, bias=True))[::-1]
    np.testing.assert_allclose(plane.var(axis=0), variances[:2], rtol=1e-6)


# A run


@pytest.mark.slow
def test_the_vectors_are_those_that_the_learner_holds_of_the_frozen_episodes(run, embedded):
    opened = open_run(find_run(run))
    episode = jax.jit(opened.tasks.family.sample)((), episodes.make_keys(0, "test", 40)[7])
    weights = opened.trained["embedding"].weights
    learner = jax.jit(opened.stage.build_algorithm().adapt)(weights, episode.support)
    np.testing.assert_allclose(embedded.tasks.vectors[7], learner.embedding, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(embedded.tasks.clusters[7], learner.cluster, rtol=1e-3, atol=1e-5)
    assert embedded.tasks.facts["mode"][7] == episode.facts["mode"]
    assert embedded.names == {"mode": ("sinusoid", "line")}


@pytest.mark.slow
def test_the_command_leaves_vectors_facts_scores_and_pictures(run, metarun_, tmp_path):
    said = metarun_("embed", run, "--tasks", 40, "--out", tmp_path / "out", "--json")
    assert said.code == 0, said
    report = json.loads(said.out[-1])
    files = {Path(name).name for name in report["files"]}
    stem = "embedding-test"
    assert files == {f"{stem}{end}" for end in (".npz", ".csv", ".json", "-map.png", "-similarity.png")}
    assert files == {path.name for path in (tmp_path / "out").iterdir()}
    with np.load(tmp_path / "out" / f"{stem}.npz", allow_pickle=False) as saved:
        vectors, modes, similarity = saved["vectors"], saved["fact_mode"], saved["similarity"]
    rows = list(csv.DictReader((tmp_path / "out" / f"{stem}.csv").read_text().splitlines()))
    assert [row["mode"] for row in rows] == [("sinusoid", "line")[mode] for mode in modes]
    np.testing.assert_allclose([[float(row[f"e{i}"]) for i in range(3)] for row in rows], vectors, rtol=1e-6)
    np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-5)
    labels = retrieval.classify_fact(modes)
    expected = retrieval.match_nearest(vectors, labels, "euclidean").mean()
    np.testing.assert_allclose(report["retrieval"]["mode"]["embedding"]["mean"], expected)
    for name in files:
        if name.endswith(".png"):
            assert min(Image.open(tmp_path / "out" / name).size) > 300


@pytest.mark.slow
def test_a_support_of_ones_own_is_nearest_to_the_task_that_it_was_taken_from(
    run, embedded, metarun_, tmp_path
):
    family = open_run(find_run(run)).tasks.family
    support = jax.jit(family.sample)((), episodes.make_keys(0, "test", 40)[11]).support
    lines = [f"{x:.9g},{y:.9g}" for x, y in np.concatenate(support, axis=1).tolist()]
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    said = metarun_(
        "embed", run, "--tasks", 40, "--out", tmp_path, "--support", tmp_path / "own.csv", "--json"
    )
    assert said.code == 0, said
    first, second, *_ = json.loads(said.out[-1])["nearest"]
    assert first["task"] == 11
    assert first["distance"] < 1e-2 * second["distance"]
    assert first["facts"]["mode"] == ("sinusoid", "line")[embedded.tasks.facts["mode"][11]]


# Pictures


def make_tasks(path: Path, kinds: Any, names: tuple[str, ...] = ()) -> EmbeddedRun:
    """Make a run with random vectors of tasks of these kinds."""
    vectors = np.random.default_rng(0).standard_normal((len(kinds), 3))
    tasks = make_vectors(vectors, kind=np.asarray(kinds))
    return EmbeddedRun(path, "embedding", 1, "test", tasks, {"kind": names} if names else {})


def read_labels(embedded: EmbeddedRun) -> tuple[list[float], list[str]]:
    """Return places and labels beside the picture of the similarity."""
    figure = Figure()
    similarity = retrieval.measure_similarities(embedded.tasks)
    vector_map.draw_similarity(figure, embedded, similarity, ["kind"])
    axes = figure.axes[0]
    return axes.get_yticks().tolist(), [label.get_text() for label in axes.get_yticklabels()]


def test_a_label_of_the_similarity_stands_at_the_middle_of_its_tasks(tmp_path):
    assert read_labels(make_tasks(tmp_path, [1, 0, 1, 1])) == ([0, 2], ["0", "1"])


def test_labels_that_would_cover_one_another_are_left_out_and_the_largest_groups_have_theirs(tmp_path):
    kinds = np.concatenate([np.arange(60), np.full(20, 30)])
    places, labels = read_labels(make_tasks(tmp_path, kinds))
    assert "30" in labels and min(np.diff(places)) >= len(kinds) / vector_map.LABELS


def test_long_names_are_shortened_in_the_middle_and_titles_stay_in_the_picture(tmp_path):
    names = tuple(f"a kind of task with a very long name, number {index}" for index in range(20))
    embedded = make_tasks(tmp_path, np.arange(40) % 20, names)._replace(stage="a-stage-" * 3)
    figure = Figure(figsize=(5.2, 4.4), dpi=120, layout="constrained")
    vector_map.draw_map(figure, embedded, {"PCA": embedded.tasks.vectors[:, :2]}, ["kind"])
    FigureCanvasAgg(figure).draw()
    texts = [label.get_text() for label in figure.axes[0].get_legend().get_texts()]
    assert len(set(texts)) == 20 and max(map(len, texts)) == vector_map.LONGEST
    (title,) = figure.texts
    box = title.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


# What is refused


@pytest.mark.slow
def test_a_stage_without_vectors_an_unknown_distance_and_an_absent_run_are_refused(run, metarun_, tmp_path):
    assert_three_lines(metarun_("embed", run, "--stage", "maml"), 2, "no vector of a task")
    assert_three_lines(metarun_("embed", run, "--distance", "manhattan"), 2, "manhattan")
    assert_three_lines(metarun_("embed", tmp_path), 5, "no run here")


@pytest.mark.slow
def test_a_support_whose_vector_is_not_finite_is_refused(run, metarun_, tmp_path):
    (tmp_path / "own.csv").write_text("1e30,1e30\n2,3\n")
    said = metarun_("embed", run, "--tasks", 40, "--out", tmp_path, "--support", tmp_path / "own.csv")
    assert_three_lines(said, 7, "not finite")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["file", "file/folder"])
def test_a_file_where_the_folder_should_be_is_refused(run, metarun_, tmp_path, place):
    (tmp_path / "file").touch()
    said = metarun_("embed", run, "--tasks", 4, "--out", tmp_path / place)
    assert_three_lines(said, 8, "a folder is needed")


@pytest.mark.slow
def test_more_tasks_than_a_similarity_can_hold_are_refused(run, metarun_):
    assert metarun_("embed", run, "--tasks", 1_000_000).code == 2


def test_without_scikit_learn_tsne_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(errors.UsageError, match="scikit-learn") as refused:
        projection.project_by_tsne(np.zeros((20, 2)))
    assert "metarun[embed]" in refused.value.remedy


@pytest.mark.slow
def test_tsne_keeps_groups_that_lie_apart_together():
    pytest.importorskip("sklearn")
    kind = np.repeat([0, 1], 20)
    vectors = 20.0 * kind[:, None] + np.random.default_rng(0).standard_normal((40, 3))
    assert retrieval.match_nearest(projection.project_by_tsne(vectors), kind, "euclidean").all()


def test_tsne_takes_one_dimension_and_refuses_vectors_that_are_all_the_same():
    pytest.importorskip("sklearn")
    kind = np.repeat([0, 1], 20)
    line = 20.0 * kind[:, None] + np.random.default_rng(0).standard_normal((40, 1))
    assert retrieval.match_nearest(projection.project_by_tsne(line), kind, "euclidean").mean() > 0.9
    with pytest.raises(errors.UsageError, match="the same vector"):
        projection.project_by_tsne(np.ones((40, 3)))


def test_a_fact_with_many_values_and_one_along_a_scale_are_drawn(tmp_path):
    tasks = make_vectors(
        np.random.default_rng(0).standard_normal((60, 2)), alphabet=np.arange(60) % 15, scale=np.arange(60.0)
    )
    drawn = EmbeddedRun(tmp_path, "embedding", 1, "test", tasks, {})
    assert vector_map.choose_facts(drawn) == ["alphabet", "scale"]
    paths = embedding_files.write_files(drawn, {"tasks": 60}, tmp_path / "out")
    paths += vector_map.write_maps(drawn, tmp_path / "out", tsne=False)
    assert all(Path(path).stat().st_size for path in paths)
