"""Smoothing over a knowledge graph against numpy, node by node; what reduces it to the plain methods; edge lists."""

import functools

import contracts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_cli import metarun_, own_place  # noqa: F401

from metarun import base, losses
from metarun.algorithms import _edge_list, _graph, _task_vector, conditioned, knowledge_graph, protonet
from metarun.base import Episode, Examples, Weights
from metarun.data.sets import omniglot as dataset
from metarun.tasks import mixture, omniglot

KEY = jax.random.key(0)
WAYS, SIZE = 3, 4  # classes of an episode, features
NAMES = ("lion", "tiger", "wolf", "dog", "fox", "cat", "dog-like", "animal", "unicorn")
RELATIONS = base.Relations(
    NAMES, 5, ((0, 5), (1, 5), (2, 6), (3, 6), (4, 6), (5, 7), (6, 7)), lambda facts: facts["class"]
)
SPEC = base.Spec((2,), WAYS)


@pytest.fixture(autouse=True)
def in_float64(request):
    if any(
        word in request.node.name for word in ("refused", "omniglot", "folder")
    ):  # families and whole runs
        yield
        return
    with contracts.float64():
        yield


def objective(relations: base.Relations | None = RELATIONS) -> base.Objective:
    return losses.classification(WAYS, 5)._replace(relations=relations)


def model() -> base.Model:
    return contracts.build_model("mlp", SPEC, hidden=(5, SIZE), activation="tanh", normalisation="batch")


def build(earlier=None, relations=RELATIONS, **options) -> base.Algorithm:
    return knowledge_graph.build(knowledge_graph.Config(**options), model(), objective(relations), earlier)


@functools.cache
def plain() -> base.Algorithm:
    return protonet.build(protonet.Config(), model(), objective())


def episode(seed: int = 0, classes=(3, 0, 2)) -> Episode:
    generator = np.random.default_rng(seed)
    labels = (jnp.asarray([2, 0, 1, 0, 2], jnp.int32), jnp.asarray([0, 1, 2, 1], jnp.int32))
    parts = [Examples(jnp.asarray(generator.standard_normal((len(y), 2))), y) for y in labels]
    return Episode(*parts, {"class": jnp.asarray(classes, jnp.int32)})


def episodes(*classes: tuple[int, ...]) -> Episode:
    """A batch of tasks of these classes."""
    tasks = [episode(seed, each) for seed, each in enumerate(classes)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)


@functools.cache
def initial() -> Weights:
    return jax.jit(build().init)(KEY, episodes((0, 1, 2), (2, 3, 4)), {})


def weights(**parts) -> Weights:
    """Random numbers for what is trained; `parts` take the place of those of the graph."""
    trained = contracts.to_float64(contracts.normal_like(initial().trained, 3))
    return Weights({**trained, "graph": trained["graph"] | parts}, initial().frozen)


def adapt(algorithm: base.Algorithm, of: Weights, support: Examples):
    return jax.jit(algorithm.adapt)(of, support)


CLOSED = {"gate": np.full(SIZE, -1e9), "gate_distance": np.zeros(())}  # nothing passes


# The graph, in numpy and by names


def neighbours(graph: _graph.Graph, trained, hidden=()) -> dict[int, dict[int, float]]:
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


def propagated(graph: _graph.Graph, trained, steps: int, hidden=()) -> dict[int, np.ndarray]:
    """{node: its vector}, of the nodes that have one."""
    related = neighbours(graph, trained, hidden)
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


def smoothed(graph: _graph.Graph, trained, steps: int, points: np.ndarray, hidden=()) -> np.ndarray:
    """c' of every point."""
    trained = jax.tree.map(np.asarray, trained)
    nodes = propagated(graph, trained, steps, hidden)
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
def family_graph() -> _graph.Graph:
    return _graph.build("family", objective(), False, "test")


def fit(steps: int, vectors: np.ndarray, places: list[int]):
    return jax.jit(functools.partial(_graph.init, family_graph(), steps))(vectors, jnp.asarray(places))


def propagate(trained, frozen, steps: int, absent=()):
    function = jax.jit(lambda *parts: _graph.propagate(family_graph(), *parts[:2], steps, parts[2]))
    return function(trained, frozen, jnp.asarray([node in absent for node in range(5)]))


@pytest.mark.parametrize(("steps", "hidden"), [(0, (2,)), (1, ()), (3, (0, 1))])
def test_propagation_is_the_mean_over_the_neighbours_that_have_a_vector(steps, hidden):
    trained, frozen = weights().trained["graph"], initial().frozen["graph"]
    found, present = propagate(trained, frozen, steps, hidden)
    expected = propagated(family_graph(), jax.tree.map(np.asarray, trained), steps, hidden)
    assert set(np.flatnonzero(present)) == set(expected)
    for node, vector in expected.items():
        np.testing.assert_allclose(found[node], vector, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("hidden", [None, (3, 0, 2)])
def test_a_vector_moves_towards_the_nodes_that_it_is_like(hidden):
    trained, frozen = weights(sharpness=jnp.asarray(0.3)).trained["graph"], initial().frozen["graph"]
    points = np.random.default_rng(4).standard_normal((3, SIZE))
    smooth = jax.jit(functools.partial(_graph.smooth, family_graph(), steps=2))
    found = smooth(trained, frozen, vectors=points, hidden=None if hidden is None else jnp.asarray(hidden))
    np.testing.assert_allclose(
        found, smoothed(family_graph(), trained, 2, points, hidden or ()), rtol=1e-9, atol=1e-12
    )


def test_before_training_all_edges_of_a_node_weigh_the_same():
    vectors = np.random.default_rng(0).standard_normal((5, SIZE))
    found, present = propagate(*fit(1, vectors, [0, 1, 2, 3, 4]), 1)
    np.testing.assert_allclose(found[5], vectors[:2].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found[6], vectors[2:].mean(axis=0), rtol=1e-12)
    assert not present[7]  # "animal" is two steps from the classes


def test_with_all_nodes_hidden_a_vector_stays_and_the_derivative_is_finite():
    points = jnp.asarray(np.random.default_rng(4).standard_normal((5, SIZE)))

    def smooth(trained):
        moved = _graph.smooth(family_graph(), trained, initial().frozen["graph"], 2, points, jnp.arange(5))
        return moved.sum(), moved

    slopes, moved = jax.jit(jax.grad(smooth, has_aux=True))(weights().trained["graph"])
    np.testing.assert_array_equal(moved, points)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_a_node_begins_at_the_mean_of_its_vectors_and_an_unseen_one_at_its_relatives():
    vectors = np.random.default_rng(0).standard_normal((4, SIZE))
    nodes = fit(2, vectors, [0, 2, 2, 3])[0]["nodes"]
    np.testing.assert_allclose(nodes[2], vectors[1:3].mean(axis=0), rtol=1e-12)
    # After two steps "tiger" has what "cat" has after one: lion. "fox" has what "dog-like" has: wolf and dog.
    np.testing.assert_allclose(nodes[1], vectors[0], rtol=1e-12)
    np.testing.assert_allclose(nodes[4], (vectors[1:3].mean(axis=0) + vectors[3]) / 2, rtol=1e-12)


# Class prototypes


def test_the_prototypes_of_a_new_task_are_the_smoothed_class_means():
    support, random = episode().support, weights()
    points = adapt(plain(), Weights(random.trained["body"]), support).prototypes
    expected = smoothed(family_graph(), random.trained["graph"], 2, np.asarray(points))
    np.testing.assert_allclose(adapt(build(), random, support).prototypes, expected, rtol=1e-9)


def test_without_a_graph_it_is_a_prototypical_network_bit_for_bit():
    task, batch = episode(), episodes((0, 1, 2))
    expected = jax.jit(plain().init)(KEY, batch, {}).trained

    def run(algorithm, wrap):
        def loss(trained):
            of = Weights(wrap(trained))
            outputs = algorithm.predict(algorithm.adapt(of, task.support), task.query.inputs)
            value, metrics = algorithm.loss(of, task, KEY)
            return value, (metrics, outputs)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(expected)

    algorithm = build(graph="none")
    contracts.assert_equal(jax.jit(algorithm.init)(KEY, batch, {}).trained, {"body": expected})
    contracts.assert_equal(run(algorithm, lambda body: {"body": body}), run(plain(), lambda body: body))


def test_a_closed_gate_is_a_prototypical_network():
    support, closed = episode().support, weights(**CLOSED)
    expected = adapt(plain(), Weights(closed.trained["body"]), support)
    np.testing.assert_array_equal(adapt(build(), closed, support).prototypes, expected.prototypes)


def test_the_gradient_is_that_of_differences_of_the_loss_and_reaches_the_edge_weights():
    algorithm, random, task = build(memory_weight=0.0, propagation_steps=3), weights(), episode()

    def loss(trained):
        return algorithm.loss(random._replace(trained=trained), task, KEY)[0]

    gradient = jax.jit(jax.grad(loss))(random.trained)
    contracts.assert_gradient_is_that_of(loss, gradient, random.trained)
    graph, slopes = family_graph(), gradient["graph"]
    hidden = {3, 0, 2}
    ends = zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)
    seen = [not hidden & set(pair) for pair in ends]
    into = np.bincount(graph.receivers, seen)[
        graph.receivers
    ]  # the weight of an only edge is 1, whatever it was
    np.testing.assert_array_equal(np.abs(slopes["edges"]) > 1e-12, seen & (into > 1))
    assert all(np.abs(slope).max() > 0 for slope in slopes.values())


def test_in_training_the_classes_of_the_episode_are_not_in_the_graph_and_in_a_new_task_all_are():
    algorithm, task, random = build(memory_weight=0.0), episode(), weights()

    @jax.jit
    @jax.jacobian
    def results(nodes):
        graph = random.trained["graph"] | {"nodes": nodes}
        of = random._replace(trained=random.trained | {"graph": graph})
        return jnp.stack(
            [algorithm.loss(of, task, KEY)[0], algorithm.adapt(of, task.support).prototypes.sum()]
        )

    training, new = np.abs(results(random.trained["graph"]["nodes"])).max(axis=2) > 0
    np.testing.assert_array_equal(training, [False, True, False, False, True])
    assert new.all()


def test_the_memory_moves_the_nodes_of_the_episode_towards_their_classes_and_nothing_else():
    random, task = weights(), episode()

    def slopes(memory_weight: float):
        algorithm = build(memory_weight=memory_weight)

        def loss(trained):
            return algorithm.loss(random._replace(trained=trained), task, KEY)[0]

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
    """Of the features of a class over support and query."""
    embed = jax.jit(lambda inputs: model().embed(body, inputs, reference=task.support.inputs))
    features = [embed(part.inputs) for part in task[:2]]
    labels = np.concatenate([part.targets for part in task[:2]])
    return np.concatenate(features)[labels == way].mean(axis=0)


def test_with_its_classes_in_another_order_a_task_has_its_predictions_in_that_order():
    algorithm, random, task = build(), weights(), episode()
    order = jnp.asarray([2, 0, 1], jnp.int32)  # the new label of each class
    support, query = (part._replace(targets=order[part.targets]) for part in task[:2])
    renamed = Episode(support, query, {"class": task.facts["class"][jnp.argsort(order)]})

    @jax.jit
    def results(task):
        outputs = algorithm.predict(algorithm.adapt(random, task.support), task.query.inputs)
        return outputs, algorithm.loss(random, task, KEY)[0]

    (outputs, loss), (moved, moved_loss) = results(task), results(renamed)
    np.testing.assert_allclose(moved[:, order], outputs, rtol=1e-12)
    np.testing.assert_allclose(moved_loss, loss, rtol=1e-12)


def test_pretrained_features_stay_as_they_are_and_nodes_begin_at_their_class_means():
    batch, before = episodes((0, 1, 2), (2, 3, 4)), Weights(initial().trained["body"])
    algorithm = build({"protonet": plain()}, pretrained="protonet")
    found = jax.jit(algorithm.init)(KEY, batch, {"protonet": before})
    assert set(found.trained) == {"graph"}
    contracts.assert_equal(found.frozen["body"], before.trained)
    first = jax.tree.map(lambda leaf: leaf[0], batch)
    expected = class_mean(before.trained, first, 1)
    np.testing.assert_allclose(found.trained["graph"]["nodes"][1], expected, rtol=1e-10)


# Vectors of tasks


@functools.cache
def described(graph: str):
    """(the conditioned learner's config, model, family; its vectors, their weights, and some tasks) on the mixture."""
    family = contracts.build_task("mixture", shots=3, queries=3)
    config = conditioned.Config(graph=graph, width=6, embed=SIZE, uses=("initialisation",), inner_steps=0)
    network = contracts.build_model("mlp", family.spec, hidden=(4,))
    vectors = _task_vector.build(config, network, family.objective, None)
    batch = jax.jit(jax.vmap(family.sample, in_axes=(None, 0)))((), jax.random.split(KEY, 12))
    found = jax.jit(lambda key, batch: vectors.init(key, batch, {})[0])(KEY, batch)
    read = jax.jit(jax.vmap(vectors.read, in_axes=(None, 0)))
    return config, network, family, read, found, batch


def test_the_vector_of_a_task_is_the_plain_one_smoothed_over_the_modes():
    *_, family, read, found, batch = described("family")
    *_, read_plain, expected, _ = described("none")
    contracts.assert_equal(expected, Weights({"encoder": found.trained["encoder"]}))
    points, modes = np.asarray(read_plain(expected, batch.support)), np.asarray(batch.facts["mode"])
    nodes = found.trained["graph"]["nodes"]
    for mode in set(modes):
        np.testing.assert_allclose(nodes[mode], points[modes == mode].mean(axis=0), rtol=1e-5, atol=1e-6)
    graph = _graph.build("family", family.objective, True, "test")
    moved = smoothed(graph, found.trained["graph"], 2, points)
    np.testing.assert_allclose(read(found, batch.support), moved, rtol=1e-4, atol=1e-6)
    closed = found._replace(trained=found.trained | {"graph": found.trained["graph"] | CLOSED})
    np.testing.assert_array_equal(read(closed, batch.support), points)


def test_a_conditioned_learner_trains_the_edge_weights_and_remembers_the_kinds():
    config, network, family, _, _, batch = described("family")
    algorithm = conditioned.build(config, network, family.objective)
    found, task = jax.jit(algorithm.init)(KEY, batch, {}), jax.tree.map(lambda leaf: leaf[0], batch)

    def loss(trained):
        return algorithm.loss(found._replace(trained=trained), task, KEY)

    slopes, metrics = jax.jit(jax.grad(loss, has_aux=True))(found.trained)
    assert metrics["memory_loss"] > 0
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes))


# What the families relate


@pytest.mark.parametrize("rotations", ["none", "random"])
def test_an_omniglot_class_belongs_to_its_alphabet_in_every_turn(rotations):
    options = {"counts": (60, 20, 20), "rotations": rotations}
    family, outline = (
        contracts.build_task("omniglot", **options),
        omniglot.outline(omniglot.Config(**options)),
    )
    relations = family.objective.relations
    assert relations[:3] == outline.objective.relations[:3]
    assert relations.known == family.objective.classes and len(set(relations.names)) == len(relations.names)
    concept = dict(relations.edges)
    assert sorted(concept) == list(range(relations.known))
    names = dataset.class_names()
    alphabets = tuple(dict.fromkeys(name.partition("/")[0] for name in names))
    part = family.data["train"]
    for place in range(relations.known):
        index, quarter_turns = place % 60, place // 60  # as facts["class"] numbers them
        turn = f"@{90 * quarter_turns}" if quarter_turns else ""
        assert relations.names[place] == names[part["character"][index]] + turn
        assert relations.names[concept[place]] == alphabets[part["alphabet"][index]] + turn


def test_the_names_of_omniglot_are_those_of_its_archives():
    contracts.build_task("omniglot", counts=(60, 20, 20))  # skips without them
    assert dataset.class_names() == dataset.load(omniglot.locations.data_root()).class_names


def test_modes_are_related_by_what_they_have_in_common():
    relations = mixture.relate(("tanh", "sinusoid", "line"))
    assert relations.names == ("tanh", "sinusoid", "line", "monotone", "bounded")
    assert relations.edges == ((0, 3), (2, 3), (0, 4), (1, 4))
    assert mixture.relate(("sinusoid", "line")).edges == ()


def test_a_picture_folder_names_its_training_classes_first_and_finds_their_places():
    family = contracts.build_task("image_folder", ways=4, counts=(18, 6, 6))
    relations = family.objective.relations
    assert relations.known == 18 and len(relations.names) == 30 and relations.edges == ()
    train = sorted(family.data["train"]["class"])
    assert relations.names[:18] == tuple(f"class{index:02}" for index in train)
    places = relations.of({"class": jnp.asarray(train)})
    np.testing.assert_array_equal(places, np.arange(18))


# Edge lists


def test_an_edge_list_gives_edges_weights_and_concepts_and_names_without_any_are_left_out(tmp_path):
    file = tmp_path / "edges.csv"
    file.write_text("# kin\nlion, tiger,2\n\nunicorn,myth,0.5\nfox,myth\n", encoding="utf-8")
    graph = _graph.build(str(file), objective(), False, "test")
    assert graph.nodes == 5 + 2  # unicorn and myth, and neither cat nor animal
    np.testing.assert_array_equal(graph.senders, [0, 5, 4, 1, 6, 6])
    np.testing.assert_array_equal(graph.receivers, [1, 6, 6, 0, 5, 4])
    np.testing.assert_array_equal(graph.weights, [2, 0.5, 1, 2, 0.5, 1])
    peer, up, down = _graph.PEER, _graph.UP, _graph.DOWN
    np.testing.assert_array_equal(graph.kinds, [peer, up, up, peer, down, down])


WRONG = {
    "lion,cat\nlion": ("1 values, or an empty one, are no edge", ", line 2"),
    "lion,": ("2 values, or an empty one", ", line 1"),
    "lion,cat,heavy": ("heavy is no weight", ", line 1"),
    "lion,cat,-1": ("-1 is no weight", ", line 1"),
    "lion,cat,inf": ("inf is no weight", ", line 1"),
    "lion,lion": ("lion is related to itself", ", line 1"),
    "lion,cat\ncat,lion": ("cat and lion are related in line 1 already", ", line 2"),
    "lion,cat\ntigre,cat": ("has no tigre", ", line 2"),
    "lion,cat,1e300": ("1e300 is no weight", ", line 1"),  # infinity in float32
    'lion,"cat\ntiger,cat': ("no line of CSV", ", line 1"),
    "lion,cat\x1b[31m": ("characters that cannot be printed", ", line 1"),
    "oak,tree\nelm,tree": ("no edge names a class", "edges.csv"),
    "# nothing": ("has no edges", "edges.csv"),
    "": ("has no edges", "edges.csv"),
}


def test_a_quotation_mark_in_a_comment_does_not_hide_the_lines_after_it(tmp_path):
    (tmp_path / "edges.csv").write_text('# big, "wild\nlion,cat\ntiger,cat\n')
    assert [edge.line for edge in _edge_list.read(tmp_path / "edges.csv", NAMES)] == [2, 3]


def test_a_checkpoint_does_not_fit_an_edge_list_of_other_concepts(tmp_path):
    file = tmp_path / "edges.csv"
    shapes = []
    for text in (
        "lion,a\ntiger,a\ncat,b\nfox,b\n",
        "lion,c\ncat,c\ntiger,d\nfox,d\n",
        "lion,a\ntiger,a\ncat,a\nfox,a\n",
    ):
        file.write_text(text)
        graph = _graph.build(str(file), objective(), False, "test")
        parts = _graph.init(graph, 1, jnp.ones((5, 2)), jnp.arange(5))
        shapes.append(jax.tree.map(jnp.shape, parts))
    assert shapes[0] == shapes[1] != shapes[2]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_edge_list_is_told_with_its_line(tmp_path, text):
    file = tmp_path / "edges.csv"
    file.write_text(text)
    with pytest.raises(_edge_list.DataError) as raised:
        _edge_list.read(file, NAMES)
    what, where = WRONG[text]
    assert what in raised.value.what
    assert raised.value.where.startswith(str(file)) and raised.value.where.endswith(where)
    if "tigre" in text:
        assert raised.value.remedy.startswith("did you mean tiger?")


def test_bytes_that_are_no_text_and_folders_are_told(tmp_path):
    (tmp_path / "edges.csv").write_bytes(b"lion,\xff")
    for path, what in ((tmp_path / "edges.csv", "not UTF-8"), (tmp_path, "cannot be read")):
        with pytest.raises(_edge_list.DataError, match=what):
            _edge_list.read(path, NAMES)


CONDITIONED = """
task: {name: mixture, modes: [sinusoid, line], shots: 3, queries: 3}
model: {name: mlp, hidden: [4], modulation: features}
algorithm: {name: conditioned, graph: GRAPH}
training: {steps: 1, tasks_per_step: 2}
accelerator: {platform: cpu}
"""


@pytest.mark.parametrize(
    ("graph", "edges", "code", "line"),
    [
        ("edges.csv", "sinusoid,lime\n", 4, "where: {folder}/edges.csv, line 1"),
        ("famly", None, 4, "where: {folder}/famly"),
        ("family", None, 3, "where: algorithm of stage conditioned"),
    ],
)
def test_a_graph_that_is_not_there_is_refused_in_three_lines(metarun_, tmp_path, graph, edges, code, line):  # noqa: F811
    (tmp_path / "small.yaml").write_text(CONDITIONED.replace("GRAPH", graph))
    if edges:
        (tmp_path / "edges.csv").write_text(edges)
    said = metarun_("train", "small.yaml", "--dry-run")
    assert said.code == code
    assert said.err[-3].startswith("error: ") and said.err[-1].startswith("to do: ")
    assert said.err[-2] == line.format(folder=tmp_path)


@pytest.mark.parametrize(
    ("relations", "graph", "what"),
    [
        (None, "family", "names no classes"),
        (RELATIONS._replace(edges=()), "family", "does not relate its classes"),
    ],
)
def test_a_family_without_relations_is_refused(relations, graph, what):
    with pytest.raises(ValueError, match=what):
        build(relations=relations, graph=graph)


def test_an_edge_list_is_the_same_file_wherever_its_run_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in (knowledge_graph, conditioned):
        assert module.Config(graph="edges.csv").graph == str(tmp_path / "edges.csv")
