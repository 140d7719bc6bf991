"""A conditioned learner whose vectors of tasks are smoothed over a graph of the kinds of tasks."""

import functools

import jax
import numpy as np
import pytest

from helpers import animals, builders, trees
from metarun.algorithms import conditioned
from metarun.algorithms.conditioned import vector_source
from metarun.base import Weights
from metarun.blocks import relation_graph

pytestmark = pytest.mark.usefixtures("own_place", "in_float64")


@functools.cache
def described(graph: str):
    """(the conditioned learner's config, model, family; its vectors, their weights, and some tasks) on the mixture."""
    family = builders.build_task("mixture", shots=3, queries=3)
    config = conditioned.Config(
        graph=graph, width=6, embed=animals.SIZE, uses=("initialisation",), inner_steps=0
    )
    network = builders.build_model("mlp", family.problem.spec, hidden=(4,))
    vectors = vector_source.build(config, network, family.problem, None)
    batch = jax.jit(jax.vmap(family.sample, in_axes=(None, 0)))((), jax.random.split(animals.KEY, 12))
    found = jax.jit(lambda key, batch: vectors.init(key, batch, {})[0])(animals.KEY, batch)
    read = jax.jit(jax.vmap(vectors.read, in_axes=(None, 0)))
    return config, network, family, read, found, batch


@pytest.mark.slow
def test_the_vector_of_a_task_is_the_plain_one_smoothed_over_the_modes():
    *_, family, read, found, batch = described("family")
    *_, read_plain, expected, _ = described("none")
    trees.assert_equal(expected, Weights({"encoder": found.trained["encoder"]}))
    points, modes = np.asarray(read_plain(expected, batch.support)), np.asarray(batch.facts["mode"])
    nodes = found.trained["graph"]["nodes"]
    for mode in set(modes):
        np.testing.assert_allclose(nodes[mode], points[modes == mode].mean(axis=0), rtol=1e-5, atol=1e-6)
    graph = relation_graph.build("family", family.problem, "tasks", "test")
    moved = animals.smooth_points(graph, found.trained["graph"], 2, points)
    np.testing.assert_allclose(read(found, batch.support), moved, rtol=1e-4, atol=1e-6)
    closed = found._replace(trained=found.trained | {"graph": found.trained["graph"] | animals.CLOSED})
    np.testing.assert_array_equal(read(closed, batch.support), points)


@pytest.mark.slow
def test_a_conditioned_learner_trains_the_edge_weights_and_remembers_the_kinds():
    config, network, family, _, _, batch = described("family")
    algorithm = conditioned.build(config, network, family.problem)
    found, task = (
        jax.jit(algorithm.init)(animals.KEY, batch, {}),
        jax.tree.map(lambda leaf: leaf[0], batch),
    )

    def loss(trained):
        return algorithm.loss(found._replace(trained=trained), task, animals.KEY, 0.0)

    slopes, metrics = jax.jit(jax.grad(loss, has_aux=True))(found.trained)
    assert metrics["memory_loss"] > 0
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes))


CONDITIONED = """
task: {name: mixture, modes: [sinusoid, line], shots: 3, queries: 3}
model: {name: mlp, hidden: [4], modulation: features}
algorithm: {name: conditioned, graph: GRAPH}
training: {steps: 1, tasks_per_step: 2}
accelerator: {platform: cpu}
"""


@pytest.mark.float32
@pytest.mark.parametrize(
    ("graph", "edges", "code", "line"),
    [
        ("edges.csv", "sinusoid,lime\n", 4, "where: {folder}/edges.csv, line 1"),
        ("famly", None, 4, "where: {folder}/famly"),
        ("family", None, 3, "where: algorithm of stage conditioned"),
    ],
)
def test_a_graph_that_is_not_there_is_refused_in_three_lines(metarun_, tmp_path, graph, edges, code, line):
    (tmp_path / "small.yaml").write_text(CONDITIONED.replace("GRAPH", graph))
    if edges:
        (tmp_path / "edges.csv").write_text(edges)
    said = metarun_("train", "small.yaml", "--dry-run")
    assert said.code == code
    assert said.err[-3].startswith("error: ") and said.err[-1].startswith("to do: ")
    assert said.err[-2] == line.format(folder=tmp_path)
