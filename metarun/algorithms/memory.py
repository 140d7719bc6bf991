"""A learner with a memory: a network reads the support one example after another, then answers.

With φ the body of the model, example t of the support is the vector a_t = [φ(x_t), y_t], and a query is [φ(x), 0]. All
queries are answered from the state after the last example, each by itself; none is written to the memory.

    reader: recurrent    an LSTM; what it knows is its state (Hochreiter, Younger, Conwell 2001)
    reader: attention    SNAIL (Mishra et al. 2018, arXiv 1707.03141): dense blocks of gated causal convolutions with
                         dilations 1, 2, 4, … over the sequence, between layers of causal attention
    reader: external     MANN (Santoro et al. 2016, arXiv 1605.06065): an LSTM whose output is a key k_t to a memory M
                         of `slots` rows, read by cosine similarity and written to the least recently used row:

        w^r = softmax(cos(k_t, M)),   r_t = M·w^r,   w^w = σ(α)·w^r_{t−1} + (1 − σ(α))·w^lu_{t−1},
        w^u = γ·w^u_{t−1} + w^r + w^w,   M ← M (its least used row erased) + w^w ⊗ k_t.

Nothing is differentiated at test time. The outer objective is the loss of the query.

Deviations: y_t comes with x_t, where the last two papers show it one step later or with x_t and ask for the last one
alone, which is what we do for every query. Training reads the support in a random order (`shuffle`); a learner reads it
as it comes. A key in cos is divided by its norm plus a small number; MANN's r_t and the LSTM's output both go to the
last layer, as in the paper; the first read is of an empty memory.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.algorithms import _features, _inner, _lstm, _network
from metarun.ranges import AtLeast, Between


@dataclass(frozen=True)
class Config:
    """How the support is read."""

    reader: Literal["recurrent", "attention", "external"] = "recurrent"  # see above
    width: Annotated[int, AtLeast(1)] = (
        128  # units of the LSTM; filters of a convolution; width of a memory row
    )
    heads: Annotated[int, AtLeast(1)] = 1  # of the attention; divides the width
    slots: Annotated[int, AtLeast(2)] = 64  # rows of the external memory
    decay: Annotated[float, Between(0, 1)] = 0.95  # γ, of the usage of a row, per example
    shuffle: bool = True  # read the support in a random order in training

    def __post_init__(self):
        if self.reader == "attention" and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")


class Learner(NamedTuple):
    """What is known after the last example of the support."""

    trained: base.PyTree
    reference: base.PyTree  # the support's inputs
    memory: base.PyTree


class Reader(NamedTuple):
    """A way to read a sequence; each function is for ONE task."""

    init: Callable  # (key, size of a step, steps) -> layers
    read: Callable  # (layers, sequence [example, feature], memory, None at the start) -> memory
    answer: Callable  # (layers, memory, queries [query, feature]) -> [query, feature]
    size: Callable  # (size of a step, steps) -> features of an answer
    goes_on: bool = True  # whether it can read on from a memory


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Raises:
      ValueError: the targets are neither labels nor numbers.
    """
    _features.has_labels(objective)
    reader = {"recurrent": recurrent, "attention": attention, "external": external}[config.reader](config)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, reader_key, head_key = jax.random.split(key, 3)
        inputs, targets = trees.first(episodes.support)
        body = _features.init_body(model, body_key, inputs)
        outputs = _features.output_size(model, inputs)
        step = _features.width(model, body, inputs) + _features.as_numbers(targets, outputs).shape[-1]
        steps = targets.shape[0]
        head = _network.init_dense(head_key, reader.size(step, steps), outputs)
        return base.Weights({"body": body, "reader": reader.init(reader_key, step, steps), "head": head})

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        return read(weights, support, None)

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        return read(weights, support, learner.memory)

    def read(weights: base.Weights, support: base.Examples, memory) -> Learner:
        trained, inputs = weights.trained, support.inputs
        features = model.embed(trained["body"], inputs, reference=inputs)
        targets = _features.as_numbers(support.targets, trained["head"]["bias"].shape[0])
        sequence = jnp.concatenate([features, targets], axis=-1)
        return Learner(trained, inputs, reader.read(trained["reader"], sequence, memory))

    def predict(learner: Learner, inputs):
        trained = learner.trained
        features = model.embed(trained["body"], inputs, reference=learner.reference)
        unknown = jnp.zeros((features.shape[0], trained["head"]["bias"].shape[0]), features.dtype)
        queries = jnp.concatenate([features, unknown], axis=-1)
        return _network.dense(trained["head"], reader.answer(trained["reader"], learner.memory, queries))

    def loss(weights: base.Weights, episode: base.Episode, key):
        support = episode.support
        if config.shuffle:
            order = jax.random.permutation(key, support.targets.shape[0])
            support = jax.tree.map(lambda leaf: leaf[order], support)
        outputs = predict(adapt(weights, support), episode.query.inputs)
        return _inner.query_loss(objective, outputs, episode.query)

    return base.Algorithm(init, loss, adapt, predict, update=update if reader.goes_on else None)


def recurrent(config: Config) -> Reader:
    """An LSTM over the sequence."""

    def init(key, size, steps):
        return _lstm.init(key, size, config.width, config.width)

    def read(cell, sequence, state):
        zeros = jnp.zeros(config.width, sequence.dtype)
        start = (zeros, zeros) if state is None else state
        return jax.lax.scan(lambda state, row: (_lstm.step(cell, row, *state), None), start, sequence)[0]

    def answer(cell, state, queries):
        return jax.vmap(lambda query: _lstm.step(cell, query, *state)[0])(queries)

    return Reader(init, read, answer, lambda size, steps: config.width)


def external(config: Config) -> Reader:
    """An LSTM with a memory that it reads by content and writes where nothing was used lately."""

    def init(key, size, steps):
        lstm_key, key_key = jax.random.split(key)
        return {
            "lstm": _lstm.init(
                lstm_key, size + config.width, config.width, config.width
            ),  # also of the last read
            "key": _network.init_dense(key_key, config.width, config.width),
            "gate": jnp.zeros(()),  # α
        }

    def look(layers, state, inputs):
        """The controller's state, the key and the read weights for one more input."""
        controller, memory, read = state["controller"], state["memory"], state["read"]
        controller = _lstm.step(layers["lstm"], jnp.concatenate([inputs, read @ memory]), *controller)
        key = jnp.tanh(_network.dense(layers["key"], controller[0]))
        return controller, key, jax.nn.softmax(similarity(key, memory))

    def write(layers, state, inputs):
        controller, key, read = look(layers, state, inputs)
        least = jax.nn.one_hot(jnp.argmin(state["usage"]), config.slots, dtype=read.dtype)
        gate = jax.nn.sigmoid(layers["gate"])
        written = gate * state["read"] + (1 - gate) * least
        memory = state["memory"] * (1 - least)[:, None] + written[:, None] * key[None]
        usage = config.decay * state["usage"] + read + written
        return {"controller": controller, "memory": memory, "read": read, "usage": usage}, None

    def read(layers, sequence, state):
        units, slots = jnp.zeros(config.width, sequence.dtype), jnp.zeros(config.slots, sequence.dtype)
        memory = jnp.zeros((config.slots, config.width), sequence.dtype)
        empty = {"controller": (units, units), "memory": memory, "read": slots, "usage": slots}
        start = empty if state is None else state
        return jax.lax.scan(lambda state, row: write(layers, state, row), start, sequence)[0]

    def answer(layers, state, queries):
        def one(query):
            controller, _, weights = look(layers, state, query)
            return jnp.concatenate([controller[0], weights @ state["memory"]])

        return jax.vmap(one)(queries)

    return Reader(init, read, answer, lambda size, steps: 2 * config.width)


def similarity(key, memory):
    """The cosine between the key [feature] and each row of the memory [slot, feature]; 0 for an empty row."""
    norms = jax.lax.rsqrt(jnp.square(memory).sum(axis=-1) + 1e-8) * jax.lax.rsqrt(
        jnp.square(key).sum() + 1e-8
    )
    return (memory @ key) * norms


def attention(config: Config) -> Reader:
    """SNAIL: attention, then twice a block of convolutions and attention; every layer adds its result to the features.

    The memory is the input of every layer at every example: a query is then one more place at the end of each.
    """

    def plan(size: int, steps: int) -> list[tuple[str, int, int]]:
        """(kind, features that go in, dilation) of every layer."""
        layers, features = [], size
        blocks = max(1, math.ceil(math.log2(steps + 1)))
        for part in ("attention", "convolution", "attention", "convolution", "attention"):
            for number in range(blocks if part == "convolution" else 1):
                layers.append((part, features, 2**number))
                features += config.width
        return layers

    def init(key, size, steps):
        layers = []
        for number, (kind, features, _) in enumerate(plan(size, steps)):
            each = jax.random.fold_in(key, number)
            if kind == "attention":
                layers.append(_network.init_attention(each, features, features, features, config.width))
            else:  # the place before and this one, to a candidate and its gate
                layers.append(_network.init_dense(each, 2 * features, 2 * config.width))
        return layers

    def dilations(layers) -> list[int]:
        """Of every layer; attention has none."""
        numbers: list[int] = []
        for layer in layers:
            before = numbers[-1] if numbers else 0
            numbers.append(0 if "queries" in layer else max(1, 2 * before))
        return numbers

    def convolve(layer, before, here):
        candidate, gate = jnp.split(
            _network.dense(layer, jnp.concatenate([before, here], axis=-1)), 2, axis=-1
        )
        return jnp.tanh(candidate) * jax.nn.sigmoid(gate)

    def read(layers, sequence, _):
        count, memory = sequence.shape[0], []
        past = jnp.tril(jnp.ones((count, count), bool))
        for layer, dilation in zip(layers, dilations(layers), strict=True):
            memory.append(sequence)
            if dilation:
                shifted = jnp.pad(sequence, ((dilation, 0), (0, 0)))[:count]
                result = convolve(layer, shifted, sequence)
            else:
                result = _network.attend(layer, config.heads, sequence, sequence, sequence, past)
            sequence = jnp.concatenate([sequence, result], axis=-1)
        return memory

    def answer(layers, memory, queries):
        for layer, past, dilation in zip(layers, memory, dilations(layers), strict=True):
            if dilation:
                count = past.shape[0]
                before = past[count - dilation] if dilation <= count else jnp.zeros_like(past[0])
                result = convolve(layer, jnp.broadcast_to(before, queries.shape), queries)
            else:
                result = jax.vmap(lambda query, layer=layer, past=past: look(layer, past, query))(queries)
            queries = jnp.concatenate([queries, result], axis=-1)
        return queries

    def look(layer, past, query):
        places = jnp.concatenate([past, query[None]])
        return _network.attend(layer, config.heads, query[None], places, places)[0]

    def size(step, steps):
        return step + config.width * len(plan(step, steps))

    return Reader(init, read, answer, size, goes_on=False)
