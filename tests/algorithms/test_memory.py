"""Learners with a memory: their recurrences against plain loops, causality, and the order of the support."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, compiled, trees
from metarun import base
from metarun.algorithms import memory
from metarun.algorithms.memory import addressed_reader, snail_reader
from metarun.blocks import networks

KEY = jax.random.key(0)
SIZE, STEPS = 5, 6  # of a step of the sequence; steps
READERS = ("recurrent", "attention", "external", "slots")
PAPER = {"keys": (4, 6, 8), "values": (2, 4, 6), "first_dilation": 2}  # SNAIL's own form, at a small size


@functools.cache
def make(name: str, **options):
    small = {"reader": name, "width": 4, "slots": 3, "heads": 2, "reads": 2}
    reader = memory.make_reader(memory.Config(**{**small, **options}))
    reader = reader._replace(
        **{part: jax.jit(getattr(reader, part)) for part in ("read", "answer", "follow")}
    )
    sequence, queries = np.random.default_rng(1).standard_normal((2, STEPS, SIZE)).astype(np.float32)
    init = jax.jit(lambda key: reader.init(key, SIZE, STEPS))
    return reader, init(KEY), sequence, queries


@pytest.mark.parametrize("name", READERS)
def test_queries_are_answered_each_by_itself(name):
    reader, layers, sequence, queries = make(name)
    known = reader.read(layers, sequence, None)
    together = reader.answer(layers, known, queries)
    alone = np.concatenate([reader.answer(layers, known, row[None]) for row in queries])
    assert together.shape == (STEPS, reader.answer_size(SIZE, STEPS))
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in READERS), ("attention", PAPER)])
def test_what_a_reader_answers_along_a_sequence_is_what_it_answers_after_each_beginning(name, options):
    reader, layers, sequence, _ = make(name, **options)
    followed = np.asarray(reader.follow(layers, sequence))
    assert followed.shape == (STEPS, reader.answer_size(SIZE, STEPS))
    for place in (1, 4):
        known = reader.read(layers, sequence[:place], None)
        answer = np.asarray(reader.answer(layers, known, sequence[place : place + 1]))[0]
        np.testing.assert_allclose(followed[place], answer, rtol=1e-4, atol=1e-6)


def test_snail_can_have_the_layers_of_its_paper():
    sizes = snail_reader.Sizes(128, 1, (64, 256, 512), (32, 128, 256), 2)
    plan = snail_reader.plan_layers(69, 5, sizes)  # 64 features and 5 labels; 5 ways, 1 shot: T = 6
    assert [layer.dilation for layer in plan] == [0, 2, 4, 8, 0, 2, 4, 8, 0]
    assert [(layer.keys, layer.units) for layer in plan if not layer.dilation] == [
        (64, 32),
        (256, 128),
        (512, 256),
    ]
    assert {layer.units for layer in plan if layer.dilation} == {128}
    assert plan[-1].features == 69 + 32 + 3 * 128 + 128 + 3 * 128
    _, layers, _, _ = make("attention", **PAPER)
    assert [set(layer) for layer in layers if "queries" in layer] == [{"queries", "keys", "values"}] * 3
    assert snail_reader.find_dilations(layers, 2) == [0, 2, 4, 8, 0, 2, 4, 8, 0]


@pytest.mark.parametrize("steps", [2, 3, STEPS])
def test_an_attention_reader_answers_as_if_the_query_were_the_last_place_of_the_sequence(steps):
    reader, layers, sequence, _ = make("attention")
    answer = reader.answer(
        layers, reader.read(layers, sequence[: steps - 1], None), sequence[steps - 1 : steps]
    )
    into_last_layer = np.asarray(reader.read(layers, sequence[:steps], None)[-1])[-1]
    found = np.asarray(answer)[0, : len(into_last_layer)]
    np.testing.assert_allclose(found, into_last_layer, rtol=1e-5, atol=1e-6)


def test_what_an_attention_reader_knows_of_an_example_depends_on_no_later_one():
    reader, layers, sequence, _ = make("attention")
    slopes = jax.jit(jax.jacfwd(lambda sequence: reader.read(layers, sequence, None)[-1]))(sequence)
    reached = np.abs(np.asarray(slopes)).max(axis=(1, 3))  # [place, example]
    assert np.array_equal(reached > 0, np.tril(np.ones((STEPS, STEPS), bool)))


@pytest.mark.parametrize("decay", [0.95, 0.5])
def test_the_external_memory_is_written_and_read_as_its_equations_say(decay):
    reader, layers, sequence, queries = make("external", decay=decay)
    layers = layers | {"gate": np.float32(0.7)}
    known = reader.read(layers, sequence, None)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def look(row):
        """The LSTM, its key, and where the key is found."""
        gates = np.concatenate([row, read @ table, hidden]) @ lstm["kernel"] + lstm["bias"]
        entering, forgetting, candidate, leaving = np.split(gates, 4)
        now = sigmoid(forgetting) * cell + sigmoid(entering) * np.tanh(candidate)
        shown = sigmoid(leaving) * np.tanh(now)
        key = np.tanh(shown @ layers["key"]["kernel"] + layers["key"]["bias"])
        norms = np.linalg.norm(table, axis=1) * np.linalg.norm(key)
        scores = np.exp(np.divide(table @ key, norms, out=np.zeros(3), where=norms > 0))
        return shown, now, key, scores / scores.sum()

    layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layers)
    lstm, hidden, cell = layers["lstm"], np.zeros(4), np.zeros(4)
    table, read, usage = np.zeros((3, 4)), np.zeros(3), np.zeros(3)
    for row in np.asarray(sequence):
        hidden, cell, key, weights = look(row)
        least = np.eye(3)[usage.argmin()]
        written = sigmoid(0.7) * read + (1 - sigmoid(0.7)) * least
        table = table * (1 - least)[:, None] + np.outer(written, key)
        usage = decay * usage + weights + written
        read = weights
    np.testing.assert_allclose(known.memory, table, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(known.usage, usage, rtol=1e-3)
    shown, _, _, weights = look(np.asarray(queries)[0])
    answer = np.asarray(reader.answer(jax.tree.map(np.float32, layers), known, queries[:1]))[0]
    np.testing.assert_allclose(answer, np.concatenate([shown, weights @ table]), rtol=1e-3, atol=1e-4)


def test_slots_are_written_and_read_as_their_equations_say():
    """Two heads on three rows and six examples, so that rows are erased and used again."""
    reader, layers, sequence, queries = make("slots", decay=0.8)
    random = np.random.default_rng(2)
    layers = layers | {"gate": np.float32(-0.5), "sharpness": np.float32([0.3, 1.2])}
    layers["vector"] = {
        "kernel": random.standard_normal((4, 4), np.float32),
        "bias": layers["vector"]["bias"],
    }
    known = reader.read(layers, sequence, None)
    answer = np.asarray(reader.answer(layers, known, queries[:1]))[0]
    layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layers)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def see(row):
        joined = np.concatenate([row, *(read @ table for read in reads), hidden])
        gates = joined @ layers["lstm"]["kernel"] + layers["lstm"]["bias"]
        entering, forgetting, candidate, leaving = np.split(gates, 4)
        now = sigmoid(forgetting) * cell + sigmoid(entering) * np.tanh(candidate)
        return sigmoid(leaving) * np.tanh(now), now

    def look():
        keys = np.tanh(hidden @ layers["keys"]["kernel"] + layers["keys"]["bias"]).reshape(2, 4)
        rows = []
        for key, sharpness in zip(keys, layers["sharpness"], strict=True):
            lengths = np.sqrt((table**2).sum(axis=1) + 1e-2) * np.linalg.norm(key)
            powers = np.exp(np.exp(sharpness) * (table @ key) / lengths)
            rows.append(powers / powers.sum())
        return np.array(rows)

    hidden, cell = np.zeros(4), np.zeros(4)
    table, reads, usage, gate = np.zeros((3, 4)), np.zeros((2, 3)), np.zeros(3), sigmoid(-0.5)
    for row in np.asarray(sequence):
        hidden, cell = see(row)
        vector = np.tanh(hidden @ layers["vector"]["kernel"] + layers["vector"]["bias"])
        least = np.eye(3)[usage.argmin()]
        written = gate * reads.mean(axis=0) + (1 - gate) * least
        table = table * (1 - least)[:, None] + np.outer(written, vector)
        reads = look()
        usage = 0.8 * usage + reads.sum(axis=0) + written
    np.testing.assert_allclose(known.memory, table, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(known.usage, usage, rtol=1e-4)
    hidden, cell = see(np.asarray(queries)[0])
    np.testing.assert_allclose(
        answer, np.concatenate([hidden, *(read @ table for read in look())]), rtol=1e-4, atol=1e-5
    )


def test_untrained_slots_keep_examples_apart_and_find_the_row_of_one_that_is_seen_again():
    """Without recurrence and with keys that are written: then an example seen again has the key of its row."""
    config = memory.Config(reader="slots", width=16, slots=12, reads=1)
    reader = memory.make_reader(config)
    sequence = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)

    @jax.jit
    def remember(key, sequence):
        layers = reader.init(key, 8, 5)
        kernel = layers["lstm"]["kernel"].at[8:].set(0)  # it sees the example alone …
        bias = layers["lstm"]["bias"].at[16:32].set(-20)  # … and forgets what was before
        random = jax.random.normal(key, (16, 16))
        same = {"kernel": random, "bias": jnp.zeros(16)}
        layers |= {"lstm": {"kernel": 5 * kernel, "bias": bias}, "vector": same, "keys": same}
        state = reader.read(layers, sequence, None)
        hidden = reader.answer(layers, state, sequence)[:, :16]
        find = jax.vmap(lambda unit: addressed_reader.look_up(layers, state.memory, unit)[0])
        return state.memory, find(hidden)

    rows, found = jax.device_get(remember(KEY, sequence))
    np.testing.assert_array_equal(found.argmax(axis=1), np.arange(5))  # the rows in the order of the examples
    assert found.max(axis=1).min() > 0.9
    units = rows[:5] / np.linalg.norm(rows[:5], axis=1, keepdims=True)
    assert np.abs(units @ units.T - np.eye(5)).max() < 0.8


def test_in_a_stream_each_answer_is_the_learners_of_the_examples_before_it_and_knows_the_label_before():
    problem = builders.classification_problem(3)._replace(stream=True)
    model = builders.build_model("mlp", problem.spec, hidden=(4,), normalisation="layer")
    algorithm = builders.build_algorithm("memory", model, problem, reader="slots", width=5, slots=4, reads=1)
    inputs = jnp.asarray(np.random.default_rng(3).standard_normal((6, 2)), jnp.float32)
    stream = base.Examples(inputs, jnp.asarray([0, 2, 1, 0, 1, 2], jnp.int32))
    weights = jax.jit(algorithm.init)(
        KEY, jax.tree.map(lambda leaf: leaf[None], base.Episode(stream, stream)), {}
    )
    follow = jax.jit(algorithm.follow)
    answers = np.asarray(follow(weights, stream))
    for place in (1, 4):
        before = jax.tree.map(lambda leaf, end=place: leaf[:end], stream)
        alone = compiled.answer(algorithm, weights, before, inputs[place : place + 1])
        np.testing.assert_allclose(answers[place], np.asarray(alone)[0], rtol=1e-4, atol=1e-6)
    other = stream._replace(targets=stream.targets.at[3].set(1))
    changed = np.abs(np.asarray(follow(weights, other)) - answers).max(axis=1) > 0
    np.testing.assert_array_equal(changed, [False, False, False, False, True, True])
    loss, _ = jax.jit(algorithm.loss)(weights, base.Episode(stream, stream), KEY, 0.0)
    np.testing.assert_allclose(loss, problem.objective.loss(jnp.asarray(answers), stream.targets), rtol=1e-5)


def test_a_pretrained_body_is_where_the_body_begins():
    problem = builders.classification_problem(3)
    model = builders.build_model("mlp", problem.spec, hidden=(4,))
    before = builders.build_algorithm("protonet", model, problem)
    config = memory.Config(pretrained="before", width=4)
    algorithm = memory.build(config, model, problem, {"before": before})
    stream = base.Examples(jnp.ones((3, 2)), jnp.asarray([0, 1, 2], jnp.int32))
    episodes = jax.tree.map(lambda leaf: leaf[None], base.Episode(stream, stream))
    body = jax.jit(before.init)(jax.random.key(7), episodes, {})
    found = jax.jit(algorithm.init)(KEY, episodes, {"before": body})
    trees.assert_equal(found.trained["body"], body.trained)
    with pytest.raises(ValueError, match="names the stage before"):
        memory.build(config, model, problem, {})


def test_the_width_is_the_size_of_the_state_and_slots_are_the_rows_of_the_memory():
    reader, layers, sequence, _ = make("recurrent", width=7)
    assert [part.shape for part in reader.read(layers, sequence, None)] == [(7,), (7,)]
    reader, layers, sequence, _ = make("external", width=7, slots=5)
    assert reader.read(layers, sequence, None).memory.shape == (5, 7)


def test_an_attention_reader_attends_with_its_heads():
    """The first layer is attention, whose result the memory shows as the last features of the second layer's input."""
    one, two = (make("attention", heads=heads) for heads in (1, 2))
    layers, sequence = one[1], one[2]
    past, attend = np.tril(np.ones((STEPS, STEPS), bool)), jax.jit(networks.attend, static_argnums=1)
    for heads, reader in ((1, one[0]), (2, two[0])):
        second = np.asarray(reader.read(layers, sequence, None)[1])
        expected = attend(layers[0], heads, sequence, sequence, sequence, past)
        np.testing.assert_allclose(second[:, SIZE:], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shuffle", [True, False])
def test_training_reads_the_support_in_a_random_order_if_it_is_to(shuffle):
    family = builders.build_task("sinusoid", shots=6, queries=5)
    model = builders.build_model("mlp", family.problem.spec)
    algorithm = builders.build_algorithm("memory", model, family.problem, shuffle=shuffle)
    episodes = compiled.sample(family, KEY, 1)
    episode = compiled.select(episodes, 0)
    weights = jax.jit(algorithm.init)(KEY, episodes, {})
    loss = jax.jit(algorithm.loss)
    values = {float(loss(weights, episode, jax.random.key(seed), 0.0)[0]) for seed in range(3)}
    assert (len(values) > 1) == shuffle


@pytest.mark.parametrize("reader", READERS)
def test_a_support_of_another_size_is_read_too(reader):
    family = builders.build_task("sinusoid", shots=6, queries=5)
    model = builders.build_model("mlp", family.problem.spec)
    algorithm = builders.build_algorithm("memory", model, family.problem, reader=reader)
    episodes = compiled.sample(family, KEY, 1)
    episode = compiled.select(episodes, 0)
    weights = jax.jit(algorithm.init)(KEY, episodes, {})
    few = compiled.select(episode.support, slice(2))
    outputs = compiled.answer(algorithm, weights, few, episode.query.inputs)
    assert outputs.shape == (5, 1)
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"width": 8, "heads": 3}, "3 heads"),
        ({"keys": (8,), "values": ()}, "1 sizes of keys and 0 of values"),
        ({"keys": (8,), "values": (3,), "heads": 2}, "2 heads"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(options, what):
    with pytest.raises(ValueError, match=what):
        memory.Config(reader="attention", **options)
