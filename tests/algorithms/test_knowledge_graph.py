"""Class prototypes smoothed over a knowledge graph: against numpy, what it reduces to, and what training sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import animals, gradients, trees
from metarun import base
from metarun.algorithms import conditioned, knowledge_graph
from metarun.base import Episode, Weights
from metarun.blocks import relation_graph

pytestmark = pytest.mark.usefixtures("own_place", "in_float64")


@pytest.mark.parametrize("steps", [0, 2])
def test_the_prototypes_of_a_new_task_are_the_smoothed_class_means(steps):
    support, random = animals.episode().support, animals.weights()
    points = animals.adapt(animals.plain(), Weights(random.trained["body"]), support).prototypes
    expected = animals.smooth_points(
        animals.family_graph(), random.trained["graph"], steps, np.asarray(points)
    )
    np.testing.assert_allclose(
        animals.adapt(animals.build(propagation_steps=steps), random, support).prototypes, expected, rtol=1e-9
    )


def test_without_a_graph_it_is_a_prototypical_network_bit_for_bit():
    task, batch = animals.episode(), animals.episodes((0, 1, 2))
    expected = jax.jit(animals.plain().init)(animals.KEY, batch, {}).trained

    def run(algorithm, wrap):
        def loss(trained):
            of = Weights(wrap(trained))
            outputs = algorithm.predict(algorithm.adapt(of, task.support), task.query.inputs)
            value, metrics = algorithm.loss(of, task, animals.KEY, 0.0)
            return value, (metrics, outputs)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(expected)

    algorithm = animals.build(graph="none")
    trees.assert_equal(jax.jit(algorithm.init)(animals.KEY, batch, {}).trained, {"body": expected})
    trees.assert_equal(run(algorithm, lambda body: {"body": body}), run(animals.plain(), lambda body: body))


def test_a_closed_gate_is_a_prototypical_network():
    support, closed = animals.episode().support, animals.weights(**animals.CLOSED)
    expected = animals.adapt(animals.plain(), Weights(closed.trained["body"]), support)
    np.testing.assert_array_equal(
        animals.adapt(animals.build(), closed, support).prototypes, expected.prototypes
    )


def test_the_gradient_is_that_of_differences_of_the_loss_and_reaches_the_edge_weights():
    algorithm = animals.build(memory_weight=0.0, propagation_steps=3)
    random, task = animals.weights(), animals.episode()

    def loss(trained):
        return algorithm.loss(random._replace(trained=trained), task, animals.KEY, 0.0)[0]

    gradient = gradients.assert_gradient_is_that_of_differences(loss, random.trained)
    graph, slopes = animals.family_graph(), gradient["graph"]
    hidden = {3, 0, 2}
    ends = zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)
    seen = [not hidden & set(pair) for pair in ends]
    # The weight of a node's only edge is 1, whatever its parameters are.
    into = np.bincount(graph.receivers, seen)[graph.receivers]
    np.testing.assert_array_equal(np.abs(slopes["edges"]) > 1e-12, seen & (into > 1))
    assert all(np.abs(slope).max() > 0 for slope in slopes.values())


def test_in_training_the_classes_of_the_episode_are_not_in_the_graph_and_in_a_new_task_all_are():
    algorithm, task, random = (
        animals.build(memory_weight=0.0),
        animals.episode(),
        animals.weights(),
    )

    @jax.jit
    @jax.jacobian
    def results(nodes):
        graph = random.trained["graph"] | {"nodes": nodes}
        of = random._replace(trained=random.trained | {"graph": graph})
        return jnp.stack(
            [
                algorithm.loss(of, task, animals.KEY, 0.0)[0],
                algorithm.adapt(of, task.support).prototypes.sum(),
            ]
        )

    training, new = np.abs(results(random.trained["graph"]["nodes"])).max(axis=2) > 0
    np.testing.assert_array_equal(training, [False, True, False, False, True])
    assert new.all()


def test_the_memory_moves_the_nodes_of_the_episode_towards_their_classes_and_nothing_else():
    random, task = animals.weights(), animals.episode()

    def slopes(memory_weight: float):
        algorithm = animals.build(memory_weight=memory_weight)

        def loss(trained):
            return algorithm.loss(random._replace(trained=trained), task, animals.KEY, 0.0)[0]

        return jax.jit(jax.grad(loss))(random.trained)

    added = jax.tree.map(lambda left, right: np.asarray(right - left), slopes(0.0), slopes(2.0))
    nodes = added["graph"].pop("nodes")
    assert all(np.abs(leaf).max() < 1e-12 for leaf in jax.tree.leaves(added))
    assert set(np.flatnonzero(np.abs(nodes).max(axis=1) > 1e-12)) == {3, 0, 2}
    table = np.asarray(random.trained["graph"]["nodes"])
    spread = ((table - table.mean(axis=0)) ** 2).sum(axis=1).mean()
    for way, place in enumerate((3, 0, 2)):
        mean = class_mean(random.trained["body"], task, way)
        np.testing.assert_allclose(nodes[place], 2.0 * 2 * (table[place] - mean) / spread / 3, rtol=1e-9)


def class_mean(body, task: Episode, way: int) -> np.ndarray:
    """Return the mean feature of a class over support and query."""
    embed = jax.jit(lambda inputs: animals.model().embed(body, inputs, reference=task.support.inputs))
    features = [embed(part.inputs) for part in task[:2]]
    labels = np.concatenate([part.targets for part in task[:2]])
    return np.concatenate(features)[labels == way].mean(axis=0)


def test_with_its_classes_in_another_order_a_task_has_its_predictions_in_that_order():
    algorithm, random, task = animals.build(), animals.weights(), animals.episode()
    order = jnp.asarray([2, 0, 1], jnp.int32)  # the new label of each class
    support, query = (part._replace(targets=order[part.targets]) for part in task[:2])
    renamed = Episode(support, query, {"class": task.facts["class"][jnp.argsort(order)]})

    @jax.jit
    def results(task):
        outputs = algorithm.predict(algorithm.adapt(random, task.support), task.query.inputs)
        return outputs, algorithm.loss(random, task, animals.KEY, 0.0)[0]

    (outputs, loss), (moved, moved_loss) = results(task), results(renamed)
    np.testing.assert_allclose(moved[:, order], outputs, rtol=1e-12)
    np.testing.assert_allclose(moved_loss, loss, rtol=1e-12)


def test_pretrained_features_stay_as_they_are_and_nodes_begin_at_their_class_means():
    batch, before = (
        animals.episodes((0, 1, 2), (2, 3, 4)),
        Weights(animals.initial().trained["body"]),
    )
    algorithm = animals.build({"protonet": animals.plain()}, pretrained="protonet")
    found = jax.jit(algorithm.init)(animals.KEY, batch, {"protonet": before})
    assert set(found.trained) == {"graph"}
    trees.assert_equal(found.frozen["body"], before.trained)
    first = jax.tree.map(lambda leaf: leaf[0], batch)
    expected = class_mean(before.trained, first, 1)
    np.testing.assert_allclose(found.trained["graph"]["nodes"][1], expected, rtol=1e-10)


@pytest.mark.float32
@pytest.mark.parametrize(
    ("relations", "graph", "what"),
    [
        (None, "family", "names no classes"),
        (animals.RELATIONS._replace(edges=()), "family", "does not relate its classes"),
    ],
)
def test_a_family_without_relations_is_refused(relations, graph, what):
    with pytest.raises(ValueError, match=what):
        animals.build(relations=relations, graph=graph)


def test_an_edge_list_is_the_same_file_wherever_its_run_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in (knowledge_graph, conditioned):
        assert module.Config(graph="edges.csv").graph == str(tmp_path / "edges.csv")


def tell(task: Episode, concepts: tuple[int, int, int]) -> Episode:
    """Return the episode whose support says the concept of each class, as a place in animals.NAMES."""
    inputs = base.Related(task.support.inputs, jnp.asarray(concepts, jnp.int32)[task.support.targets])
    return task._replace(support=task.support._replace(inputs=inputs))


def test_a_class_that_brings_an_edge_moves_towards_its_concept_and_others_as_before():
    random, task, graph = animals.weights(), animals.episode(), animals.family_graph()
    layers = random.trained["graph"] | {"told": np.float64(60.0)}
    told = Weights(random.trained | {"graph": layers}, random.frozen)
    algorithm = animals.build()
    plain = np.asarray(animals.adapt(algorithm, random, task.support).prototypes)
    moved = np.asarray(animals.adapt(algorithm, told, tell(task, (-1, 5, 8)).support).prototypes)
    np.testing.assert_allclose(moved[[0, 2]], plain[[0, 2]], rtol=1e-12)  # 8 is a name without an edge
    concept = animals.propagate_by_name(graph, jax.tree.map(np.asarray, layers), 2)[5]
    means = np.asarray(
        animals.adapt(animals.plain(), Weights(random.trained["body"]), task.support).prototypes
    )
    table = np.stack(list(animals.propagate_by_name(graph, jax.tree.map(np.asarray, layers), 2).values()))
    spread = ((table - table.mean(axis=0)) ** 2).sum(axis=1).mean()
    distance = ((means[1] - concept) ** 2).sum() / spread
    gate = 1 / (1 + np.exp(-(np.asarray(layers["gate"]) + np.asarray(layers["gate_distance"]) * distance)))
    np.testing.assert_allclose(moved[1], means[1] + gate * (concept - means[1]), rtol=1e-9)


def test_training_learns_how_much_an_edge_that_is_brought_counts_and_nothing_without_propagation():
    batch = animals.episodes((0, 1, 2), (2, 3, 4))
    concepts = jnp.asarray([[5, 6, 6], [6, 6, 6]], jnp.int32)  # 5 is not there while its members are hidden
    labels = batch.support.targets
    related = base.Related(batch.support.inputs, jnp.take_along_axis(concepts, jnp.asarray(labels), axis=1))
    brought = batch._replace(support=batch.support._replace(inputs=related))
    task = jax.device_put(jax.tree.map(lambda leaf: leaf[0], brought))

    def find_slope(steps: int):
        algorithm = animals.build(propagation_steps=steps)
        weights = jax.jit(algorithm.init)(animals.KEY, brought, {})
        random = gradients.to_float64(trees.normal_like(weights.trained, 3))
        random["graph"] |= {"sharpness": jnp.asarray(-3.0), "told": jnp.asarray(1.0)}

        def loss(trained):
            return algorithm.loss(weights._replace(trained=trained), task, animals.KEY, 0.0)[0]

        return weights, jax.jit(jax.grad(loss))(random)["graph"]["told"]

    weights, slope = find_slope(1)
    assert float(weights.trained["graph"]["told"]) == relation_graph.FIRST_TOLD
    assert abs(float(slope)) > 1e-9
    assert float(find_slope(0)[1]) == 0.0


def test_shuffled_edges_have_the_shape_of_the_graph_and_other_ends():
    given, shuffled = (
        relation_graph.build("family", animals.problem(), "classes", "test", edges)
        for edges in ("given", "shuffled")
    )
    ends = [
        set(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)) for graph in (given, shuffled)
    ]
    assert ends[0] != ends[1]
    assert len(ends[0]) == len(ends[1])
    assert {edge for edge in ends[0] if min(edge) >= 5} == {edge for edge in ends[1] if min(edge) >= 5}
    degrees = [sorted(np.bincount(graph.receivers, minlength=8)) for graph in (given, shuffled)]
    assert degrees[0] == degrees[1]
    assert animals.build(edges="shuffled", propagation_steps=1) is not None
