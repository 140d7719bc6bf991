"""Propagation and smoothing over a graph against numpy, node by node; graphs from edge lists."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import animals
from metarun.blocks import relation_graph

pytestmark = pytest.mark.usefixtures("in_float64")


def fit(steps: int, vectors: np.ndarray, places: list[int]):
    return jax.jit(functools.partial(relation_graph.init, animals.family_graph(), steps))(
        vectors, np.asarray(places)
    )


def propagate(trained, frozen, steps: int, absent=()):
    function = jax.jit(
        lambda *parts: relation_graph.propagate(animals.family_graph(), *parts[:2], steps, parts[2])
    )
    return function(trained, frozen, jnp.asarray([node in absent for node in range(5)]))


@pytest.mark.parametrize(("steps", "hidden"), [(0, (2,)), (1, ()), (3, (0, 1))])
def test_propagation_is_the_mean_over_the_neighbours_that_have_a_vector(steps, hidden):
    trained, frozen = animals.weights().trained["graph"], animals.initial().frozen["graph"]
    found, present = propagate(trained, frozen, steps, hidden)
    expected = animals.propagate_by_name(
        animals.family_graph(), jax.tree.map(np.asarray, trained), steps, hidden
    )
    assert set(np.flatnonzero(present)) == set(expected)
    for node, vector in expected.items():
        np.testing.assert_allclose(found[node], vector, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("hidden", [None, (3, 0, 2)])
def test_a_vector_moves_towards_the_nodes_that_it_is_like(hidden):
    trained, frozen = (
        animals.weights(sharpness=jnp.asarray(0.3)).trained["graph"],
        animals.initial().frozen["graph"],
    )
    points = np.random.default_rng(4).standard_normal((3, animals.SIZE))
    smooth = jax.jit(functools.partial(relation_graph.smooth, animals.family_graph(), steps=2))
    found = smooth(trained, frozen, vectors=points, hidden=None if hidden is None else jnp.asarray(hidden))
    np.testing.assert_allclose(
        found,
        animals.smooth_points(animals.family_graph(), trained, 2, points, hidden or ()),
        rtol=1e-9,
        atol=1e-12,
    )


def test_before_training_all_edges_of_a_node_weigh_the_same():
    vectors = np.random.default_rng(0).standard_normal((5, animals.SIZE))
    found, present = propagate(*fit(1, vectors, [0, 1, 2, 3, 4]), 1)
    np.testing.assert_allclose(found[5], vectors[:2].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found[6], vectors[2:].mean(axis=0), rtol=1e-12)
    assert not present[7]  # "animal" is two steps from the classes


def test_with_all_nodes_hidden_a_vector_stays_and_the_derivative_is_finite():
    points = jax.device_put(np.random.default_rng(4).standard_normal((5, animals.SIZE)))

    def smooth(trained):
        moved = relation_graph.smooth(
            animals.family_graph(),
            trained,
            animals.initial().frozen["graph"],
            2,
            points,
            jnp.arange(5),
        )
        return moved.sum(), moved

    slopes, moved = jax.jit(jax.grad(smooth, has_aux=True))(animals.weights().trained["graph"])
    np.testing.assert_array_equal(moved, points)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_a_node_begins_at_the_mean_of_its_vectors_and_an_unseen_one_at_its_relatives():
    vectors = np.random.default_rng(0).standard_normal((4, animals.SIZE))
    nodes = fit(2, vectors, [0, 2, 2, 3])[0]["nodes"]
    np.testing.assert_allclose(nodes[2], vectors[1:3].mean(axis=0), rtol=1e-12)
    # After two steps "tiger" has what "cat" has after one: lion. "fox" has what "dog-like" has: wolf and dog.
    np.testing.assert_allclose(nodes[1], vectors[0], rtol=1e-12)
    np.testing.assert_allclose(nodes[4], (vectors[1:3].mean(axis=0) + vectors[3]) / 2, rtol=1e-12)


def test_an_edge_list_gives_edges_weights_and_concepts_and_names_without_any_are_left_out(tmp_path):
    file = tmp_path / "edges.csv"
    file.write_text("# kin\nlion, tiger,2\n\nunicorn,myth,0.5\nfox,myth\n", encoding="utf-8")
    graph = relation_graph.build(str(file), animals.problem(), "classes", "test")
    assert graph.nodes == 5 + 2  # unicorn and myth, and neither cat nor animal
    np.testing.assert_array_equal(graph.senders, [0, 5, 4, 1, 6, 6])
    np.testing.assert_array_equal(graph.receivers, [1, 6, 6, 0, 5, 4])
    np.testing.assert_array_equal(graph.weights, [2, 0.5, 1, 2, 0.5, 1])
    peer, up, down = relation_graph.PEER, relation_graph.UP, relation_graph.DOWN
    np.testing.assert_array_equal(graph.kinds, [peer, up, up, peer, down, down])


def test_a_checkpoint_does_not_fit_an_edge_list_of_other_concepts(tmp_path):
    file = tmp_path / "edges.csv"
    shapes = []
    for text in (
        "lion,a\ntiger,a\ncat,b\nfox,b\n",
        "lion,c\ncat,c\ntiger,d\nfox,d\n",
        "lion,a\ntiger,a\ncat,a\nfox,a\n",
    ):
        file.write_text(text)
        graph = relation_graph.build(str(file), animals.problem(), "classes", "test")
        init = functools.partial(relation_graph.init, graph, 1)
        parts = jax.eval_shape(init, np.ones((5, 2)), np.arange(5))
        shapes.append(jax.tree.map(jnp.shape, parts))
    assert shapes[0] == shapes[1] != shapes[2]
