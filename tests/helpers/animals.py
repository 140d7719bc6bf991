"""A knowledge graph of animals, a learner that uses it, and its equations in numpy, node by node."""

import functools

import jax
import numpy as np

from helpers import builders, gradients, trees
from metarun import base
from metarun.algorithms import knowledge_graph, protonet
from metarun.base import Episode, Examples, Weights
from metarun.blocks import relation_graph

KEY = jax.random.key(0)
WAYS, SIZE = 3, 4  # classes of an episode, features
CLOSED = {"gate": np.full(SIZE, -1e9), "gate_distance": np.zeros(())}  # parameters with which nothing passes
NAMES = ("lion", "tiger", "wolf", "dog", "fox", "cat", "dog-like", "animal", "unicorn")
RELATIONS = base.Relations(
    NAMES, 5, ((0, 5), (1, 5), (2, 6), (3, 6), (4, 6), (5, 7), (6, 7)), lambda facts: facts["class"]
)
SPEC = base.Spec((2,), WAYS, "classes")


def problem(relations: base.Relations | None = RELATIONS) -> base.Problem:
    return builders.make_problem(SPEC, training_classes=5, relations=relations)


def model() -> base.Model:
    return builders.build_model("mlp", SPEC, hidden=(5, SIZE), activation="tanh", normalisation="batch")


def build(earlier=None, relations=RELATIONS, **options) -> base.Algorithm:
    return knowledge_graph.build(knowledge_graph.Config(**options), model(), problem(relations), earlier)


@functools.cache
def plain() -> base.Algorithm:
    return protonet.build(protonet.Config(), model(), problem())


def episode(seed: int = 0, classes=(3, 0, 2)) -> Episode:
    generator = np.random.default_rng(seed)
    labels = (np.asarray([2, 0, 1, 0, 2], np.int32), np.asarray([0, 1, 2, 1], np.int32))
    parts = [Examples(generator.standard_normal((len(y), 2)), y) for y in labels]
    return jax.device_put(Episode(*parts, {"class": np.asarray(classes, np.int32)}))


def episodes(*classes: tuple[int, ...]) -> Episode:
    """A batch of tasks of these classes."""
    tasks = [episode(seed, each) for seed, each in enumerate(classes)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)


@functools.cache
def initial() -> Weights:
    return jax.jit(build().init)(KEY, episodes((0, 1, 2), (2, 3, 4)), {})


def weights(**parts) -> Weights:
    """Random numbers for what is trained; `parts` take the place of those of the graph."""
    trained = gradients.to_float64(trees.normal_like(initial().trained, 3))
    return Weights({**trained, "graph": trained["graph"] | parts}, initial().frozen)


def adapt(algorithm: base.Algorithm, of: Weights, support: Examples):
    return jax.jit(algorithm.adapt)(of, support)


def find_neighbours(graph: relation_graph.Graph, trained, hidden=()) -> dict[int, dict[int, float]]:
    """{node: {neighbour or itself: the logit of its edge}}, without the hidden nodes."""
    kinds = np.asarray(trained["kinds"])
    found = {node: {node: kinds[3]} for node in range(graph.nodes) if node not in hidden}
    count = len(graph.senders) // 2
    for index in range(2 * count):
        sender, receiver = int(graph.senders[index]), int(graph.receivers[index])
        if sender in found and receiver in found:
            is_peer = max(sender, receiver) < graph.relations.known
            kind = 2 if is_peer else index // count
            found[receiver][sender] = np.log(graph.weights[index]) + kinds[kind] + trained["edges"][index]
    return found


def propagate_by_name(graph: relation_graph.Graph, trained, steps: int, hidden=()) -> dict[int, np.ndarray]:
    """{node: its vector}, of the nodes that have one."""
    related = find_neighbours(graph, trained, hidden)
    vectors = {node: np.asarray(vector) for node, vector in enumerate(trained["nodes"]) if node not in hidden}
    for _ in range(steps):
        moved = {}
        for node, logits in related.items():
            senders = [other for other in logits if other in vectors]
            if senders:
                powers = np.exp([logits[other] for other in senders])
                mixed = sum(power * vectors[other] for power, other in zip(powers, senders, strict=True))
                moved[node] = mixed / powers.sum()
        vectors = moved
    return vectors


def smooth_points(
    graph: relation_graph.Graph, trained, steps: int, points: np.ndarray, hidden=()
) -> np.ndarray:
    """c' of every point."""
    trained = jax.tree.map(np.asarray, trained)
    nodes = propagate_by_name(graph, trained, steps, hidden)
    table = np.stack(list(nodes.values()))
    spread = ((table - table.mean(axis=0)) ** 2).sum(axis=1).mean()
    ranks = [trained["ranks"][int(node >= graph.relations.known)] for node in nodes]
    rows = []
    for point in points:
        weighted = (np.exp(trained["metric"]) * (point - table) ** 2).sum(axis=1) / spread
        powers = np.exp(-np.exp(trained["sharpness"]) * weighted + ranks)
        message = powers @ table / powers.sum()
        logit = trained["gate"] + trained["gate_distance"] * ((point - message) ** 2).sum() / spread
        rows.append(point + (message - point) / (1 + np.exp(-logit)))
    return np.array(rows)


@functools.cache
def family_graph() -> relation_graph.Graph:
    return relation_graph.build("family", problem(), "classes", "test")
