"""The attention reader, SNAIL: attention, then twice a block of causal convolutions and attention.

Every layer adds its result to the features. The memory is the input of every layer at every example: a query is then
one more place at the end of each sequence.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun.algorithms.memory.sequence_reader import Reader
from metarun.base import PyTree
from metarun.blocks import networks


def make_reader(width: int, heads: int) -> Reader:
    """Make a reader whose every layer adds `width` features, with `heads` heads in its attention."""

    def init(key, size, steps):
        return init_layers(key, plan_layers(size, steps, width), width)

    def read(layers, sequence, _):
        count, memory = sequence.shape[0], []
        past = jnp.tril(jnp.ones((count, count), bool))
        for layer, dilation in zip(layers, find_dilations(layers), strict=True):
            memory.append(sequence)
            if dilation:
                earlier = jnp.pad(sequence, ((dilation, 0), (0, 0)))[:count]
                result = convolve(layer, earlier, sequence)
            else:
                result = networks.attend(layer, heads, sequence, sequence, sequence, past)
            sequence = jnp.concatenate([sequence, result], axis=-1)
        return memory

    def answer(layers, memory, queries):
        for layer, past, dilation in zip(layers, memory, find_dilations(layers), strict=True):
            if dilation:
                count = past.shape[0]
                earlier = past[count - dilation] if dilation <= count else jnp.zeros_like(past[0])
                result = convolve(layer, jnp.broadcast_to(earlier, queries.shape), queries)
            else:
                result = jax.vmap(functools.partial(attend_past, layer, heads, past))(queries)
            queries = jnp.concatenate([queries, result], axis=-1)
        return queries

    def find_answer_size(size, steps):
        return size + width * len(plan_layers(size, steps, width))

    return Reader(init, read, answer, find_answer_size, continues=False)


def plan_layers(size: int, steps: int, width: int) -> list[tuple[Literal["attention", "convolution"], int]]:
    """Return the kind and the input features of every layer. The convolutions of a block span all steps."""
    block: list[Literal["attention", "convolution"]]
    block = ["convolution"] * max(1, math.ceil(math.log2(steps + 1)))
    kinds = ["attention", *block, "attention", *block, "attention"]
    return [(kind, size + place * width) for place, kind in enumerate(kinds)]


def init_layers(key, plan: list[tuple[Literal["attention", "convolution"], int]], width: int) -> list[PyTree]:
    """Return the layers of a plan."""
    layers = []
    for place, (kind, features) in enumerate(plan):
        layer_key = jax.random.fold_in(key, place)
        if kind == "attention":
            layers.append(networks.init_attention(layer_key, features, features, features, width))
        else:  # from an earlier place and this one, to a candidate and its gate
            layers.append(networks.init_dense(layer_key, 2 * features, 2 * width))
    return layers


def find_dilations(layers: list[PyTree]) -> list[int]:
    """Return how many places back each convolution looks: 1, 2, 4, … within a block; 0 for attention."""
    dilations: list[int] = []
    for layer in layers:
        previous = dilations[-1] if dilations else 0
        dilations.append(0 if "queries" in layer else max(1, 2 * previous))
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
