"""Matching networks: a query has the labels of the support examples that it attends to.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra 2016, arXiv 1606.04080. With the embeddings f of a query and g of
the support examples (x_i, y_i),

    a_i(x) = softmax_i(scale · cos(f(x), g(x_i))),    p(y = k | x) = Σ_{i: y_i = k} a_i(x),    loss = −log p(y | x);

the outputs are log p. With `context: none` f and g are both the model's features f'. With `context: full` each
embedding depends on the whole support (section 2.1.2 and appendix A):

    g(x_i) = h→_i + h←_i + f'(x_i),    a bidirectional LSTM along the support;
    f(x) = h_K,  with  ĥ_k, c_k = LSTM(f'(x), [h_{k−1}, r_{k−1}], c_{k−1}),    h_k = ĥ_k + f'(x),
           r_k = Σ_i softmax_i(⟨h_k, g(x_i)⟩) g(x_i),    h_0 = c_0 = 0, so that r_0 is the mean of the g(x_i).

Where we differ: the paper has `scale` 1, with which no probability in five ways can exceed 0.65; our default is 10.
One network makes the features of query and support. The LSTM reads the support in the order of the labels, whatever
order it comes in. No weight depends on ways and shots, so that evaluation may have others than training. The model's
last layer would have no gradient, and is not among the weights.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metarun import base, trees
from metarun.blocks import backbone, lstm, metric_space, outer_loss, target_kinds
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config:
    """The attention over the support, and the embeddings that it compares."""

    context: Literal["none", "full"] = "none"  # full: each embedding depends on the whole support
    reads: Annotated[int, AtLeast(1)] = 5  # K, how often a query reads the support; only in full context
    scale: Annotated[float, Above(0)] = 10.0  # factor of the cosines; the paper's is 1


class Learner(NamedTuple):
    """The embedded support with its labels, and the inputs that normalise the queries."""

    params: base.PyTree  # {"features"}, and in full context {"forward", "backward", "reading"}
    embeddings: Float[Array, "example feature"]
    labels: Int[Array, "example"]
    reference: base.PyTree


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions. Needs no earlier stage.

    Returns:
      An algorithm whose weights are `features`, the model's without its last layer, and in full context the LSTMs
      `forward`, `backward` and `reading`. Its outputs are log-probabilities [example, way].

    Raises:
      ValueError: the family is no classification.
    """
    ways = target_kinds.require_ways(problem, "matching")

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        body_key, *keys = jax.random.split(key, 4)
        inputs = trees.first(episodes.support.inputs)
        body = backbone.init_body(model, body_key, inputs)
        if config.context == "none":
            return base.Weights({"features": body})
        width = backbone.count_features(model, body, inputs)
        recurrent = {"forward": width, "backward": width, "reading": 2 * width}
        cells = {
            name: lstm.init(cell_key, width, size, width)
            for cell_key, (name, size) in zip(keys, recurrent.items(), strict=True)
        }
        return base.Weights({"features": body} | cells)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        params = weights.trained
        features, labels = backbone.embed_support(model, params["features"], support), support.targets
        if config.context == "full":
            order = jnp.argsort(labels, stable=True)
            features, labels = embed_support(params, features[order]), labels[order]
        return Learner(params, features, labels, support.inputs)

    def predict(learner: Learner, inputs):
        features = model.embed(learner.params["features"], inputs, reference=learner.reference)
        if config.context == "full":
            features = embed_queries(learner.params["reading"], features, learner.embeddings, config.reads)
        scores = config.scale * metric_space.cosines(features, learner.embeddings)
        return class_log_probabilities(scores, learner.labels, ways)

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict)


def class_log_probabilities(
    scores: Float[Array, "query example"], labels: Int[Array, "example"], ways: int
) -> Float[Array, "query {ways}"]:
    """Return log Σ_{i: y_i = k} softmax_i(scores) for every class k; −∞ for a class without examples."""
    log_attention = jax.nn.log_softmax(scores)
    members = labels[:, None] == jnp.arange(ways)[None, :]  # [example, way]
    # [query, example, way]
    log_shares = jnp.where(members[None, :, :], log_attention[:, :, None], -jnp.inf)
    return jax.nn.logsumexp(log_shares, axis=1)


def embed_support(
    params: base.PyTree, features: Float[Array, "example feature"]
) -> Float[Array, "example feature"]:
    """Return g: the features plus the states of a bidirectional LSTM along the examples."""

    def run(cell, reverse):
        def advance(state, inputs):
            state = lstm.step(cell, inputs, *state)
            return state, state[0]

        start = (jnp.zeros_like(features[0]), jnp.zeros_like(features[0]))
        return jax.lax.scan(advance, start, features, reverse=reverse)[1]

    return run(params["forward"], False) + run(params["backward"], True) + features


def embed_queries(
    cell: base.PyTree,
    features: Float[Array, "query feature"],
    support: Float[Array, "example feature"],
    reads: int,
) -> Float[Array, "query feature"]:
    """Return f: an LSTM reads the embedded support `reads` times, for each query by itself."""
    hidden = memory = jnp.zeros_like(features)
    for _ in range(reads):
        attended = jax.nn.softmax(hidden @ support.T) @ support
        state, memory = lstm.step(cell, features, jnp.concatenate([hidden, attended], axis=-1), memory)
        hidden = state + features
    return hidden
