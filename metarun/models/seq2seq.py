"""An encoder-decoder Transformer for sentences of tokens, small enough for an inner loop.

Vaswani et al. 2017, arXiv 1706.03762, with the normalisation before each sub-layer (Xiong et al. 2020, 2002.04745),
learned positions, no dropout and no running statistics: it is a pure function of its parameters and has a second
derivative. Inputs are {"source", "prefix"}, int32 [example, token] each. Token 0 of the source is padding, to which no
token attends.

With {"source", base.GREEDY} it answers with whole sentences. It then remembers the keys and values of what it has said,
so that a token costs one position and not all of them (Shazeer 2019, arXiv 1911.02150, section 2.3), and it ends with
the longest answer.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metarun import base
from metarun.base import BEGIN, END, PAD
from metarun.models import _dense, _flax
from metarun.ranges import AtLeast, AtMost

HIDDEN_SCORE = -1e9  # softmax turns this score into zero

Projected = Float[Array, "example token head part"]


@dataclass(frozen=True)
class Config:
    """The size of the network."""

    width: Annotated[int, AtLeast(1)] = 64  # features of a token; a multiple of heads
    heads: Annotated[int, AtLeast(1)] = 4  # heads of every attention
    depth: Annotated[int, AtLeast(1), AtMost(100)] = 1  # layers of the encoder, and of the decoder
    feedforward: Annotated[int, AtLeast(1)] = 128  # hidden units of the dense layers after the attentions

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}")


class Memory(NamedTuple):
    """Keys and values of one layer of the decoder."""

    keys: Projected  # of what was said; zeros where nothing was yet
    values: Projected
    source_keys: Projected
    source_values: Projected


class Embedding(nn.Module):
    """A vector for each token and one for each position, added."""

    vocabulary: int
    width: int
    length: int  # positions

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "example token"], first: int | Int[Array, ""] = 0
    ) -> Float[Array, "example token feature"]:
        """Return the vectors of tokens that stand at the positions from `first` on."""
        table = self.param("tokens", nn.initializers.normal(1.0), (self.vocabulary, self.width))
        positions = self.param("positions", nn.initializers.normal(1.0), (self.length, self.width))
        here = jax.lax.dynamic_slice_in_dim(positions, first, tokens.shape[1])
        return table[tokens] + here[None]


class Attention(nn.Module):
    """Scaled dot-product attention in several heads."""

    width: int
    heads: int

    def setup(self):
        self.query, self.key, self.value = (_dense.Dense(self.width) for _ in range(3))
        self.mix = _dense.Dense(self.width)

    def __call__(
        self,
        features: Float[Array, "example token feature"],
        context: Float[Array, "example other feature"],
        visible: Bool[Array, "#example #token other"],
    ) -> Float[Array, "example token feature"]:
        return self.attend(features, *self.remember(context), visible)

    def remember(self, context: Float[Array, "example token feature"]) -> tuple[Projected, Projected]:
        """Return the keys and values of a context."""
        return self.part(self.key(context)), self.part(self.value(context))

    def attend(
        self,
        features: Float[Array, "example token feature"],
        keys: Float[Array, "example other head part"],
        values: Float[Array, "example other head part"],
        visible: Bool[Array, "#example #token other"],
    ) -> Float[Array, "example token feature"]:
        """Return what each token takes from the visible values."""
        queries = self.part(self.query(features))
        scores = jnp.einsum("ethf,eohf->ehto", queries, keys) * queries.shape[-1] ** -0.5
        shares = jax.nn.softmax(jnp.where(visible[:, None], scores, HIDDEN_SCORE))
        mixed = jnp.einsum("ehto,eohf->ethf", shares, values)
        return self.mix(mixed.reshape(features.shape))

    def part(self, features: Float[Array, "example token feature"]) -> Projected:
        """Return the features of each head."""
        return features.reshape(*features.shape[:2], self.heads, -1)


class Layer(nn.Module):
    """Attention to the sentence itself, then to the source if there is one, then two dense layers, each added."""

    config: Config

    def setup(self):
        width, heads = self.config.width, self.config.heads
        self.norm_self, self.norm_source, self.norm_dense = (nn.LayerNorm() for _ in range(3))
        self.attend_self, self.attend_source = Attention(width, heads), Attention(width, heads)
        self.dense_in, self.dense_out = _dense.Dense(self.config.feedforward), _dense.Dense(width)

    def __call__(self, features, visible, source=None, source_visible=None):
        inputs = self.norm_self(features)
        features = features + self.attend_self(inputs, inputs, visible)
        if source is not None:
            features = features + self.attend_source(self.norm_source(features), source, source_visible)
        return self.transform(features)

    def transform(self, features):
        """Add the two dense layers."""
        return features + self.dense_out(jax.nn.gelu(self.dense_in(self.norm_dense(features))))

    def begin(self, source: Float[Array, "example other feature"], length: int) -> Memory:
        """Return the memory of a decoder's layer before anything is said."""
        source_keys, source_values = self.attend_source.remember(source)
        shape = (source.shape[0], length, *source_keys.shape[2:])
        nothing = jnp.zeros(shape, source_keys.dtype)
        return Memory(nothing, nothing, source_keys, source_values)

    def say(self, features, memory: Memory, position, source_visible):
        """Return the features of the one token at a position, [example, 1, feature], and the memory with it."""
        inputs = self.norm_self(features)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=1)
            for old, new in zip(memory[:2], self.attend_self.remember(inputs), strict=True)
        )
        said = (jnp.arange(keys.shape[1]) <= position)[None, None]
        features = features + self.attend_self.attend(inputs, keys, values, said)
        inputs = self.norm_source(features)
        features = features + self.attend_source.attend(inputs, *memory[2:], source_visible)
        return self.transform(features), memory._replace(keys=keys, values=values)


class Transformer(nn.Module):
    """An encoder, a decoder, and a dense layer with an output for each token of the target vocabulary."""

    config: Config
    vocabulary: int
    output_size: int
    length: int  # tokens of a sentence

    def setup(self):
        config = self.config
        self.source_embedding = Embedding(self.vocabulary, config.width, self.length)
        self.target_embedding = Embedding(self.output_size, config.width, self.length)
        self.encoder = [Layer(config) for _ in range(config.depth)]
        self.decoder = [Layer(config) for _ in range(config.depth)]
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(), nn.LayerNorm()
        self.head = _dense.Dense(self.output_size)

    def encode(self, source):
        features, visible = self.source_embedding(source), (source != PAD)[:, None]
        for layer in self.encoder:
            features = layer(features, visible)
        return self.encoder_norm(features)

    def embed(self, inputs, reference_count: int):
        is_word = (inputs["source"] != PAD)[..., None]
        features = jnp.where(is_word, self.encode(inputs["source"]), 0.0)
        return features.sum(axis=1) / jnp.maximum(is_word.sum(axis=1), 1)

    def __call__(self, inputs, reference_count: int):
        source, prefix = inputs["source"], inputs["prefix"]
        encoded, visible = self.encode(source), (source != PAD)[:, None]
        features, earlier = self.target_embedding(prefix), jnp.tri(prefix.shape[1], dtype=bool)[None]
        for layer in self.decoder:
            features = layer(features, earlier, encoded, visible)
        return self.head(self.decoder_norm(features))

    def begin(self, source: Int[Array, "example token"], length: int) -> tuple[Memory, ...]:
        """Return the memory of every layer of the decoder before anything is said."""
        encoded = self.encode(source)
        return tuple(layer.begin(encoded, length) for layer in self.decoder)

    def say(self, source, tokens: Int[Array, "example"], memories: tuple[Memory, ...], position):
        """Return the logits after one more token of the prefix, [example, output], and the memories with it."""
        features, visible = self.target_embedding(tokens[:, None], position), (source != PAD)[:, None]
        kept = []
        for layer, memory in zip(self.decoder, memories, strict=True):
            features, memory = layer.say(features, memory, position, visible)
            kept.append(memory)
        return self.head(self.decoder_norm(features))[:, 0], tuple(kept)


def build(config: Config, spec: base.Spec) -> base.Model:
    """Build the model for sentences of tokens below `spec.vocabulary`. Its features are the mean of the encoded source.

    Raises:
      ValueError: the inputs are no sentences.
    """
    if spec.vocabulary is None:
        raise ValueError(
            f"seq2seq needs sentences of tokens, not inputs of shape {spec.input_shape}",
            "take model.name=mlp for vectors, conv4 for pictures",
        )
    module = Transformer(config, spec.vocabulary, spec.output_size, spec.input_shape[0])
    plain = _flax.from_module(module, uses_batch_statistics=False)

    def apply(params, inputs, *, condition=None, reference=None):
        if base.GREEDY not in inputs or condition is not None:
            return plain.apply(params, inputs, condition=condition, reference=reference)
        return translate(module, params, jnp.asarray(inputs["source"]), inputs[base.GREEDY].shape[1])

    return plain._replace(apply=apply)


def translate(module: Transformer, params: base.PyTree, source: Int[Array, "example token"], length: int):
    """Return the likeliest token at each position up to END, int32 [example, length]; see `base.Model`.

    The loop ends as soon as every sentence has ended.
    """

    def goes_on(state):
        position, _, ended, *_ = state
        return (position < length) & ~ended.all()

    def say(state):
        position, token, ended, said, memories = state
        logits, memories = module.apply({"params": params}, source, token, memories, position, method="say")
        token = jnp.argmax(logits[:, END:], axis=-1).astype(source.dtype) + END
        token = jnp.where(ended, PAD, token)
        said = jax.lax.dynamic_update_index_in_dim(said, token, position, axis=1)
        ended |= token == END
        return position + 1, jnp.where(ended, PAD, token), ended, said, memories

    count = source.shape[0]
    memories = module.apply({"params": params}, source, length, method="begin")
    begin = jnp.full((count,), BEGIN, source.dtype)
    said = jnp.full((count, length), PAD, source.dtype)
    start = (jnp.array(0), begin, jnp.zeros((count,), bool), said, memories)
    return jax.lax.while_loop(goes_on, say, start)[3]
