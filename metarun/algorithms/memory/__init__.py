"""A learner with a memory: a network reads the support one example after another, then answers.

With φ the body of the model, example t of the support is the vector a_t = [φ(x_t), y_t], and a query is [φ(x), 0].
Every query is answered by itself, from the state after the last example; no query is written to the memory.

    reader: recurrent    an LSTM; what it knows is its state (Hochreiter, Younger, Conwell 2001)
    reader: attention    SNAIL (Mishra et al. 2018, arXiv 1707.03141): dense blocks of gated causal convolutions with
                         dilations over the sequence, between layers of causal attention. `keys`, `values` and
                         `first_dilation` can write the paper's network, which `width` and `heads` alone do not.
    reader: slots        MANN (Santoro et al. 2016, arXiv 1605.06065) as its reference implementations have it: an LSTM
                         whose output h_t is a vector v_t and keys k_t, one for each head, to a memory M of `slots`
                         rows. It writes to the least recently used row and then reads by cosine similarity:

        w^w = σ(α)·mean_heads w^r_{t−1} + (1 − σ(α))·w^lu_{t−1},    M ← M (its least used row erased) + w^w ⊗ v_t,
        w^r = softmax(β·cos(k_t, M)) for each head,    r_t = w^r·M,    w^u = γ·w^u_{t−1} + Σ_heads w^r + w^w.

                         α and one β for each head are learned, from −4 and 10. Unlike there, one row is written for an
                         example, not one for each head, and one α serves all; and the maps from h_t to k_t begin as
                         that to v_t, so that an example finds what resembles it before anything is learned.
    reader: external     the same to the letter of the paper: one head, v_t = k_t, β = 1, M is read before it is
                         written, and α begins at 0. Its rows become alike; use `slots`.

Nothing is differentiated at test time. The outer objective is the loss of the query. With `pretrained` the body begins
as that of an earlier stage, and is trained further.

In an ordinary episode y_t comes with x_t. In a stream (`Problem.stream`, MANN's own protocol) a_t = [φ(x_t), y_{t−1}]:
each example is answered before its label is told, the loss is over all examples, and φ sees each one by itself, so that
no later example has a part in an answer.

Other deviations: SNAIL shows y_t with x_t and asks only for the last example; we do this for every query. Training
reads the support in a random order (`shuffle`); a learner reads it as it comes. A key in cos is divided by its norm
plus a small number. r_t and h_t both go to the last layer, as in MANN; the first read is of an empty memory.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base, trees
from metarun.algorithms.memory import addressed_reader, lstm_reader, slot_reader, snail_reader
from metarun.algorithms.memory.sequence_reader import Reader
from metarun.blocks import backbone, earlier_stages, networks, outer_loss, pretrained_body, target_kinds
from metarun.ranges import AtLeast, Between


@dataclass(frozen=True)
class Config:
    """How the support is read."""

    # LSTM, SNAIL, MANN to the letter of the paper, or MANN as its reference implementations have it.
    reader: Literal["recurrent", "attention", "external", "slots"] = "recurrent"
    # Units of the LSTM, filters of a convolution, and numbers in a row of the memory.
    width: Annotated[int, AtLeast(1)] = 128
    heads: Annotated[int, AtLeast(1)] = 1  # heads of the attention; they divide the width
    slots: Annotated[int, AtLeast(2)] = 64  # rows of the memory; 2 or 3 for each example of a support suffice
    reads: Annotated[int, AtLeast(1)] = 4  # heads that read the memory of `slots`
    decay: Annotated[float, Between(0, 1)] = 0.95  # γ, the share of a row's usage that an example leaves
    # SNAIL's sizes of keys, one for each layer of attention: 64, 256, 512 in the paper; empty: three layers of `width`
    # with `heads`, each with a dense layer after it.
    keys: tuple[Annotated[int, AtLeast(1)], ...] = ()
    # SNAIL's sizes of values, as many as of keys: 32, 128, 256 in the paper.
    values: tuple[Annotated[int, AtLeast(1)], ...] = ()
    # Places that the first convolution of a block of SNAIL looks back, each next one twice as many; 2 in the paper.
    first_dilation: Annotated[int, AtLeast(1)] = 1
    shuffle: bool = True  # read the support in a random order in training; a stream keeps its order
    pretrained: str | None = None  # name of the earlier stage whose body is the first one; null: a random one

    def __post_init__(self):
        if self.reader == "attention" and not self.keys and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        if len(self.keys) != len(self.values):
            raise ValueError(f"{len(self.keys)} sizes of keys and {len(self.values)} of values do not match")
        if any(size % self.heads for size in self.keys + self.values):
            raise ValueError(f"{self.heads} heads do not divide all sizes of keys and values")


class Learner(NamedTuple):
    """The network's memory after the last example of the support."""

    trained: base.PyTree
    reference: base.PyTree  # the support's inputs
    memory: base.PyTree
    # What a query is told: zeros, or in a stream the target of the example before it.
    told: Float[Array, "output"]


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the functions: `update` unless the reader is SNAIL, and `follow` in a stream.

    Raises:
      ValueError: the targets are neither labels nor numbers; there is no earlier stage `pretrained`.
    """
    target_kinds.refuse_tokens(problem)
    if config.pretrained is not None:
        earlier_stages.find("pretrained", config.pretrained, earlier)
    reader = make_reader(config)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, reader_key, head_key = jax.random.split(key, 3)
        support = trees.first(episodes.support)
        body = pretrained_body.start(config.pretrained, model, body_key, support.inputs, earlier)
        outputs, steps = problem.spec.output_size, support.targets.shape[0]
        size = backbone.count_features(model, body, support.inputs) + outputs
        head = networks.init_dense(head_key, reader.answer_size(size, steps), outputs)
        return base.Weights({"body": body, "reader": reader.init(reader_key, size, steps), base.HEAD: head})

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        return read(weights, support, None, tell_nothing(weights.trained))

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        return read(weights, support, learner.memory, learner.told)

    def read(weights: base.Weights, support: base.Examples, memory, told) -> Learner:
        trained = weights.trained
        sequence, told = make_sequence(model, problem, trained, support, told)
        return Learner(trained, support.inputs, reader.read(trained["reader"], sequence, memory), told)

    def predict(learner: Learner, inputs):
        trained = learner.trained
        features = embed(model, problem, trained, inputs, learner.reference)
        told = jnp.broadcast_to(learner.told, (features.shape[0], *learner.told.shape))
        queries = jnp.concatenate([features, told], axis=-1)
        return networks.dense(trained[base.HEAD], reader.answer(trained["reader"], learner.memory, queries))

    def follow(weights: base.Weights, stream: base.Examples):
        trained = weights.trained
        sequence, _ = make_sequence(model, problem, trained, stream, tell_nothing(trained))
        return networks.dense(trained[base.HEAD], reader.follow(trained["reader"], sequence))

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        if problem.stream:
            return outer_loss.judge(problem.objective, follow(weights, episode.query), episode.query)
        support = episode.support
        if config.shuffle:
            order = jax.random.permutation(key, support.targets.shape[0])
            support = jax.tree.map(lambda leaf: leaf[order], support)
        outputs = predict(adapt(weights, support), episode.query.inputs)
        return outer_loss.judge(problem.objective, outputs, episode.query)

    algorithm = base.Algorithm(init, loss, adapt, predict, update=update if reader.continues else None)
    return algorithm._replace(follow=follow) if problem.stream else algorithm


def embed(
    model: base.Model,
    problem: base.Problem,
    trained: base.PyTree,
    inputs: base.PyTree,
    reference: base.PyTree,
) -> Float[Array, "example feature"]:
    """Return φ of the inputs; in a stream of each by itself, whatever the reference is."""
    if not problem.stream:
        return model.embed(trained["body"], inputs, reference=reference)

    def embed_one(one: base.PyTree):
        return model.embed(trained["body"], jax.tree.map(lambda leaf: leaf[None], one))[0]

    return jax.vmap(embed_one)(inputs)


def make_sequence(
    model: base.Model, problem: base.Problem, trained: base.PyTree, examples: base.Examples, told
) -> tuple[Float[Array, "example feature"], Float[Array, "output"]]:
    """Return what is read for each example, and what an example after the last would be told.

    Args:
      told: what the first example is told in a stream; else what every query is told.
    """
    features = embed(model, problem, trained, examples.inputs, examples.inputs)
    targets = target_kinds.as_numbers(problem.spec, examples.targets, count_outputs(trained))
    if problem.stream:
        targets, told = jnp.concatenate([told[None], targets[:-1]]), targets[-1]
    return jnp.concatenate([features, targets], axis=-1), told


def tell_nothing(trained: base.PyTree) -> Float[Array, "output"]:
    """Return zeros in place of a target."""
    return jnp.zeros_like(trained[base.HEAD][base.BIAS])


def make_reader(config: Config) -> Reader:
    """Make the reader that the config names."""
    if config.reader == "recurrent":
        return lstm_reader.make_reader(config.width)
    if config.reader == "attention":
        sizes = (config.width, config.heads, config.keys, config.values, config.first_dilation)
        return snail_reader.make_reader(snail_reader.Sizes(*sizes))
    if config.reader == "external":
        return slot_reader.make_reader(config.width, config.slots, config.decay)
    return addressed_reader.make_reader(config.width, config.slots, config.decay, config.reads)


def count_outputs(trained: base.PyTree) -> int:
    """Return the ways or dimensions that the weights were trained for; an evaluation may be in others."""
    return trained[base.HEAD][base.BIAS].shape[0]
