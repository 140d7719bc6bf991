"""A learner with a memory: a network reads the support one example after another, then answers.

With φ the body of the model, example t of the support is the vector a_t = [φ(x_t), y_t], and a query is [φ(x), 0].
Every query is answered by itself, from the state after the last example; no query is written to the memory.

    reader: recurrent    an LSTM; what it knows is its state (Hochreiter, Younger, Conwell 2001)
    reader: attention    SNAIL (Mishra et al. 2018, arXiv 1707.03141): dense blocks of gated causal convolutions with
                         dilations 1, 2, 4, … over the sequence, between layers of causal attention
    reader: external     MANN (Santoro et al. 2016, arXiv 1605.06065): an LSTM whose output is a key k_t to a memory M
                         of `slots` rows, read by cosine similarity and written to the least recently used row:

        w^r = softmax(cos(k_t, M)),   r_t = M·w^r,   w^w = σ(α)·w^r_{t−1} + (1 − σ(α))·w^lu_{t−1},
        w^u = γ·w^u_{t−1} + w^r + w^w,   M ← M (its least used row erased) + w^w ⊗ k_t.

Nothing is differentiated at test time. The outer objective is the loss of the query.

Deviations: y_t comes with x_t. MANN shows y_t one step later. SNAIL shows it with x_t and asks only for the last
example; we do this for every query. Training reads the support in a random order (`shuffle`); a learner reads it as it
comes. A key in cos is divided by its norm plus a small number. MANN's r_t and the LSTM's output both go to the last
layer, as in the paper; the first read is of an empty memory.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.algorithms.memory import lstm_reader, slot_reader, snail_reader
from metarun.algorithms.memory.sequence_reader import Reader
from metarun.blocks import backbone, networks, outer_loss, target_kinds
from metarun.ranges import AtLeast, Between


@dataclass(frozen=True)
class Config:
    """How the support is read."""

    reader: Literal["recurrent", "attention", "external"] = "recurrent"  # LSTM, SNAIL or MANN
    # Units of the LSTM, filters of a convolution, and numbers in a row of the external memory.
    width: Annotated[int, AtLeast(1)] = 128
    heads: Annotated[int, AtLeast(1)] = 1  # heads of the attention; they divide the width
    slots: Annotated[int, AtLeast(2)] = 64  # rows of the external memory
    decay: Annotated[float, Between(0, 1)] = 0.95  # γ, the share of a row's usage that an example leaves
    shuffle: bool = True  # read the support in a random order in training

    def __post_init__(self):
        if self.reader == "attention" and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")


class Learner(NamedTuple):
    """The network's memory after the last example of the support."""

    trained: base.PyTree
    reference: base.PyTree  # the support's inputs
    memory: base.PyTree


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions, and `update` unless the reader is SNAIL. Needs no earlier stage.

    Raises:
      ValueError: the targets are neither labels nor numbers.
    """
    target_kinds.refuse_tokens(problem)
    reader = make_reader(config)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, reader_key, head_key = jax.random.split(key, 3)
        inputs, targets = trees.first(episodes.support)
        body = backbone.init_body(model, body_key, inputs)
        outputs, steps = problem.spec.output_size, targets.shape[0]
        size = backbone.count_features(model, body, inputs) + outputs
        head = networks.init_dense(head_key, reader.answer_size(size, steps), outputs)
        return base.Weights({"body": body, "reader": reader.init(reader_key, size, steps), base.HEAD: head})

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        return read(weights, support, None)

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        return read(weights, support, learner.memory)

    def read(weights: base.Weights, support: base.Examples, memory) -> Learner:
        trained = weights.trained
        features = backbone.embed_support(model, trained["body"], support)
        targets = target_kinds.as_numbers(problem.spec, support.targets, count_outputs(trained))
        sequence = jnp.concatenate([features, targets], axis=-1)
        return Learner(trained, support.inputs, reader.read(trained["reader"], sequence, memory))

    def predict(learner: Learner, inputs):
        trained = learner.trained
        features = model.embed(trained["body"], inputs, reference=learner.reference)
        unknown = jnp.zeros((features.shape[0], count_outputs(trained)), features.dtype)
        queries = jnp.concatenate([features, unknown], axis=-1)
        return networks.dense(trained[base.HEAD], reader.answer(trained["reader"], learner.memory, queries))

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        support = episode.support
        if config.shuffle:
            order = jax.random.permutation(key, support.targets.shape[0])
            support = jax.tree.map(lambda leaf: leaf[order], support)
        outputs = predict(adapt(weights, support), episode.query.inputs)
        return outer_loss.judge(problem.objective, outputs, episode.query)

    return base.Algorithm(init, loss, adapt, predict, update=update if reader.continues else None)


def make_reader(config: Config) -> Reader:
    """Make the reader that the config names."""
    if config.reader == "recurrent":
        return lstm_reader.make_reader(config.width)
    if config.reader == "attention":
        return snail_reader.make_reader(config.width, config.heads)
    return slot_reader.make_reader(config.width, config.slots, config.decay)


def count_outputs(trained: base.PyTree) -> int:
    """Return the ways or dimensions that the weights were trained for; an evaluation may be in others."""
    return trained[base.HEAD][base.BIAS].shape[0]
