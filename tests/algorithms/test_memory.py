"""Learners with a memory: their recurrences against plain loops, causality, and the order of the support."""

import functools

import jax
import numpy as np
import pytest

from helpers import builders, compiled
from metarun.algorithms import memory
from metarun.blocks import networks

KEY = jax.random.key(0)
SIZE, STEPS = 5, 6  # of a step of the sequence; steps
READERS = ("recurrent", "attention", "external")


@functools.cache
def make(name: str, **options):
    config = memory.Config(**{"reader": name, "width": 4, "slots": 3, "heads": 2, **options})
    reader = memory.make_reader(config)
    reader = reader._replace(read=jax.jit(reader.read), answer=jax.jit(reader.answer))
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


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="3 heads"):
        memory.Config(reader="attention", width=8, heads=3)
