"""An encoder-decoder Transformer for sentences of tokens, small enough for an inner loop.

Vaswani et al. 2017, arXiv 1706.03762, with the normalisation before each sub-layer (Xiong et al. 2020, 2002.04745),
learned positions, no dropout and no running statistics: it is a pure function of its parameters and has a second
derivative. Inputs are {"source", "prefix"}, int32 [example, token] each. Token 0 of the source is padding, to which no
token attends.
"""

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metarun import base
from metarun.models import _dense, _flax
from metarun.ranges import AtLeast

PAD = 0  # the padding of every family of sentences
HIDDEN_SCORE = -1e9  # softmax turns this score into zero


@dataclass(frozen=True)
class Config:
    """The size of the network."""

    width: Annotated[int, AtLeast(1)] = 64  # features of a token; a multiple of heads
    heads: Annotated[int, AtLeast(1)] = 4  # heads of every attention
    depth: Annotated[int, AtLeast(1)] = 1  # layers of the encoder, and of the decoder
    feedforward: Annotated[int, AtLeast(1)] = 128  # hidden units of the dense layers after the attentions

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}")


class Embedding(nn.Module):
    """A vector for each token and one for each position, added."""

    vocabulary: int
    width: int

    @nn.compact
    def __call__(self, tokens: Int[Array, "example token"]) -> Float[Array, "example token feature"]:
        table = self.param("tokens", nn.initializers.normal(1.0), (self.vocabulary, self.width))
        positions = self.param("positions", nn.initializers.normal(1.0), (tokens.shape[1], self.width))
        return table[tokens] + positions[None]


class Attention(nn.Module):
    """Scaled dot-product attention in several heads."""

    width: int
    heads: int

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "example token feature"],
        context: Float[Array, "example other feature"],
        visible: Bool[Array, "#example #token other"],
    ) -> Float[Array, "example token feature"]:
        def project(name: str, inputs):
            outputs = _dense.Dense(self.width, name=name)(inputs)
            return outputs.reshape(*inputs.shape[:2], self.heads, -1)  # [example, token, head, feature]

        queries, keys, values = project("query", features), project("key", context), project("value", context)
        scores = jnp.einsum("ethf,eohf->ehto", queries, keys) * queries.shape[-1] ** -0.5
        shares = jax.nn.softmax(jnp.where(visible[:, None], scores, HIDDEN_SCORE))
        mixed = jnp.einsum("ehto,eohf->ethf", shares, values)
        return _dense.Dense(self.width, name="mix")(mixed.reshape(features.shape))


class Layer(nn.Module):
    """Attention to the sentence itself, then to the source if there is one, then two dense layers, each added."""

    config: Config

    @nn.compact
    def __call__(self, features, visible, source=None, source_visible=None):
        width, heads = self.config.width, self.config.heads
        inputs = nn.LayerNorm(name="norm_self")(features)
        features = features + Attention(width, heads, name="attend_self")(inputs, inputs, visible)
        if source is not None:
            inputs = nn.LayerNorm(name="norm_source")(features)
            attend = Attention(width, heads, name="attend_source")
            features = features + attend(inputs, source, source_visible)
        inputs = nn.LayerNorm(name="norm_dense")(features)
        hidden = jax.nn.gelu(_dense.Dense(self.config.feedforward, name="dense_in")(inputs))
        return features + _dense.Dense(width, name="dense_out")(hidden)


class Transformer(nn.Module):
    """An encoder, a decoder, and a dense layer with an output for each token of the target vocabulary."""

    config: Config
    vocabulary: int
    output_size: int

    def setup(self):
        config = self.config
        self.source_embedding = Embedding(self.vocabulary, config.width)
        self.target_embedding = Embedding(self.output_size, config.width)
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
    module = Transformer(config, spec.vocabulary, spec.output_size)
    return _flax.from_module(module, uses_batch_statistics=False)
