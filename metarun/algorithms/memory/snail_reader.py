"""The attention reader, SNAIL: attention, then twice a block of causal convolutions and attention.

Every layer adds its result to the features. The memory is the input of every layer at every example: a query is then
one more place at the end of each sequence. With keys, values and a first dilation of 2 it is the paper's network:
AttentionBlock(64, 32), TCBlock(T, 128), AttentionBlock(256, 128), TCBlock(T, 128), AttentionBlock(512, 256), where T
is the support with one query, and a block has ⌈log2 T⌉ convolutions of two places with dilations 2, 4, 8, …
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun.algorithms.memory.sequence_reader import Reader
from metarun.base import PyTree
from metarun.blocks import networks

ATTENTIONS = 3  # layers of attention where no sizes are given


class Sizes(NamedTuple):
    """The sizes of the network."""

    width: int  # filters of a convolution; without `keys` what an attention adds, too
    heads: int = 1  # of an attention
    # Size of the keys and of the values of each attention, which then has no dense layer after it; empty: `ATTENTIONS`
    # layers of `width`, each with a dense layer.
    keys: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    # Places that the first convolution of a block looks back; each next one looks back twice as many.
    first_dilation: int = 1


class Layer(NamedTuple):
    """One layer of the plan."""

    features: int  # of its input
    units: int  # that it adds
    dilation: int = 0  # places that a convolution looks back; 0: the layer is attention
    keys: int = 0  # size of the keys of an attention without a dense layer; 0: it has one


def make_reader(sizes: Sizes) -> Reader:
    """Make a reader of these sizes."""

    def init(key, size, steps):
        return init_layers(key, plan_layers(size, steps, sizes))

    def apply(layers, sequence):
        """Return the input of every layer, and the output of the last."""
        count, memory = sequence.shape[0], []
        past = jnp.tril(jnp.ones((count, count), bool))
        for layer, dilation in zip(layers, find_dilations(layers, sizes.first_dilation), strict=True):
            memory.append(sequence)
            if dilation:
                earlier = jnp.pad(sequence, ((dilation, 0), (0, 0)))[:count]
                result = convolve(layer, earlier, sequence)
            else:
                result = networks.attend(layer, sizes.heads, sequence, sequence, sequence, past)
            sequence = jnp.concatenate([sequence, result], axis=-1)
        return memory, sequence

    def read(layers, sequence, _):
        return apply(layers, sequence)[0]

    def follow(layers, sequence):
        return apply(layers, sequence)[1]

    def answer(layers, memory, queries):
        dilations = find_dilations(layers, sizes.first_dilation)
        for layer, past, dilation in zip(layers, memory, dilations, strict=True):
            if dilation:
                count = past.shape[0]
                earlier = past[count - dilation] if dilation <= count else jnp.zeros_like(past[0])
                result = convolve(layer, jnp.broadcast_to(earlier, queries.shape), queries)
            else:
                result = jax.vmap(functools.partial(attend_past, layer, sizes.heads, past))(queries)
            queries = jnp.concatenate([queries, result], axis=-1)
        return queries

    def find_answer_size(size, steps):
        return size + sum(layer.units for layer in plan_layers(size, steps, sizes))

    return Reader(init, read, answer, follow, find_answer_size, continues=False)


def plan_layers(size: int, steps: int, sizes: Sizes) -> list[Layer]:
    """Return the layers: an attention, and before each further one a block whose convolutions span all steps."""
    length = max(1, math.ceil(math.log2(steps + 1)))
    dilations = [sizes.first_dilation << place for place in range(length)]
    plan: list[Layer] = []

    def add(units: int, dilation: int = 0, keys: int = 0) -> None:
        features = plan[-1].features + plan[-1].units if plan else size
        plan.append(Layer(features, units, dilation, keys))

    keys = sizes.keys or (0,) * ATTENTIONS
    for place, key_size in enumerate(keys):
        for dilation in dilations if place else ():
            add(sizes.width, dilation)
        add(sizes.values[place] if key_size else sizes.width, keys=key_size)
    return plan


def init_layers(key, plan: list[Layer]) -> list[PyTree]:
    """Return the layers of a plan."""
    layers = []
    for place, (features, units, dilation, keys) in enumerate(plan):
        layer_key = jax.random.fold_in(key, place)
        if dilation:  # from an earlier place and this one, to a candidate and its gate
            layers.append(networks.init_dense(layer_key, 2 * features, 2 * units))
        elif keys:
            sizes, layer_keys = (
                {"queries": keys, "keys": keys, "values": units},
                jax.random.split(layer_key, 3),
            )
            parts = zip(sizes.items(), layer_keys, strict=True)
            layers.append({name: networks.init_dense(own, features, size) for (name, size), own in parts})
        else:
            layers.append(networks.init_attention(layer_key, features, features, features, units))
    return layers


def find_dilations(layers: list[PyTree], first: int) -> list[int]:
    """Return how many places back each convolution looks: first, 2 · first, … within a block; 0 for attention."""
    dilations: list[int] = []
    for layer in layers:
        previous = dilations[-1] if dilations else 0
        dilations.append(0 if "queries" in layer else max(first, 2 * previous))
    return dilations


def convolve(
    layer: PyTree, earlier: Float[Array, "example feature"], current: Float[Array, "example feature"]
) -> Float[Array, "example unit"]:
    """Apply a gated convolution to pairs of an earlier place and the current one."""
    both = networks.dense(layer, jnp.concatenate([earlier, current], axis=-1))
    candidate, gate = jnp.split(both, 2, axis=-1)
    return jnp.tanh(candidate) * jax.nn.sigmoid(gate)


def attend_past(
    layer: PyTree, heads: int, past: Float[Array, "example feature"], query: Float[Array, "feature"]
) -> Float[Array, "unit"]:
    """Apply attention from one query to all past places and itself."""
    places = jnp.concatenate([past, query[None]])
    return networks.attend(layer, heads, query[None], places, places)[0]
