"""Neural processes: an encoder reads the support into a representation, a decoder answers from it.

With φ the body of the model and h, g perceptrons, each support example becomes r_i = h(φ(x_i), y_i), and a query x
is answered by g(φ(x), r, z). What r and z are:

    path: deterministic                        r = mean of the r_i, no z        conditional neural process
    path: latent                               no r, z ~ q(z | mean of r_i)     neural process
    path: deterministic, summary: attention    r = attention of x over the r_i
    path: both, summary: attention             both of them                     attentive neural process

Garnelo et al. 2018, arXiv 1807.01613 and 1807.01622; Kim et al. 2019, arXiv 1901.05761. Nothing is differentiated at
test time. The outer objective is the query loss; with z it is the bound on the likelihood of the query Q given the
support S, a mean over the queries:

    −log p(y | x, r, z) + KL(q(z | S ∪ Q) ‖ q(z | S)) / |Q|,    z ~ q(z | S ∪ Q).

Deviations: `likelihood: objective` takes the family's own loss for −log p: for regression the squared error, which is a
Gaussian of variance ½ up to a constant. The papers' Gaussian with a learned deviation is `likelihood: gaussian`. A
learner predicts with the mean of q(z | S), without drawing. Classes enter the encoder as one-hot vectors. The
attentive paper's self-attention of the support is left out. Encoder and decoder share φ. The projections of queries and
keys begin equal (the authors' code shares a perceptron between them). With separate draws the classes of Omniglot
stayed at chance for 2,000 steps (5-way 1-shot, Adam 3e-3, 32 tasks a step; 600 steps at 3e-4 did not help).
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarun import base, trees
from metarun.algorithms.neural_process import gaussian
from metarun.blocks import backbone, networks, outer_loss, target_kinds
from metarun.ranges import AtLeast, AtMost


@dataclass(frozen=True)
class Config:
    """The paths from the support to a prediction."""

    # Paths from the support to the decoder.
    path: Literal["deterministic", "latent", "both"] = "deterministic"
    summary: Literal["mean", "attention"] = "mean"  # what the deterministic path makes of the support
    # objective: the family's own loss; gaussian: learn a deviation too, for regression.
    likelihood: Literal["objective", "gaussian"] = "objective"
    width: Annotated[int, AtLeast(1)] = 128  # units of every layer, numbers of r and of z
    depth: Annotated[int, AtLeast(1), AtMost(100)] = 3  # layers of the encoder, and of the decoder
    heads: Annotated[int, AtLeast(1)] = 8  # heads of the attention; they divide the width

    def __post_init__(self):
        if self.path == "latent" and self.summary == "attention":
            raise ValueError(
                "attention is on the deterministic path, and path latent has none",
                "set path to deterministic or both",
            )
        if self.summary == "attention" and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")

    @property
    def has_values(self) -> bool:
        """Whether there is a deterministic path."""
        return self.path != "latent"

    @property
    def has_latent(self) -> bool:
        """Whether there is a latent path."""
        return self.path != "deterministic"

    @property
    def numbers_per_output(self) -> int:
        """How many numbers the decoder gives for each output: a mean and a deviation, or the output alone."""
        return 2 if self.likelihood == "gaussian" else 1


class Learner(NamedTuple):
    """The representation of the support."""

    trained: base.PyTree
    reference: base.PyTree  # the support's inputs
    keys: base.PyTree  # φ(x_i), [example, feature]
    values: base.PyTree  # r_i, [example, feature]; () without a deterministic path
    latent: base.PyTree  # z, [feature]; () without a latent path


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions. Needs no earlier stage.

    Returns:
      An algorithm whose learner is a `Learner`; with a latent path, `divergence` is among the loss metrics.

    Raises:
      ValueError: a Gaussian of class labels, or targets that are neither labels nor numbers.
    """
    target_kinds.refuse_tokens(problem)
    refuse_gaussian_of_classes(config, problem)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs = trees.first(episodes.support.inputs)
        return base.Weights(init_layers(config, model, problem.spec.output_size, key, inputs))

    def embed_pairs(trained, examples: base.Examples, reference):
        """Return φ(x_i), and [φ(x_i), y_i]."""
        features = model.embed(trained["body"], examples.inputs, reference=reference)
        targets = target_kinds.as_numbers(problem.spec, examples.targets, count_outputs(config, trained))
        return features, jnp.concatenate([features, targets], axis=-1)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        trained = weights.trained
        keys, pairs = embed_pairs(trained, support, support.inputs)
        values = networks.perceptron(trained["encoder"], pairs) if config.has_values else ()
        latent = infer_latent(trained["latent"], pairs).mean if config.has_latent else ()
        return Learner(trained, support.inputs, keys, values, latent)

    def decode(learner: Learner, inputs):
        features = model.embed(learner.trained["body"], inputs, reference=learner.reference)
        known = jnp.concatenate([features, *recall(config, learner, features)], axis=-1)
        return networks.perceptron(learner.trained["decoder"], known)

    def predict(learner: Learner, inputs):
        return read_outputs(config, decode(learner, inputs))

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        support, query = episode.support, episode.query
        learner = adapt(weights, support)
        if not config.has_latent:
            return judge(config, problem.objective, decode(learner, query.inputs), query)
        prior, posterior = (
            infer_latent(weights.trained["latent"], embed_pairs(weights.trained, examples, support.inputs)[1])
            for examples in (support, target_kinds.join(support, query))
        )
        learner = learner._replace(latent=gaussian.draw(posterior, key))
        divergence = gaussian.divergence(posterior, prior)
        penalty = divergence / query.targets.shape[0]
        error, metrics = judge(config, problem.objective, decode(learner, query.inputs), query)
        return error + penalty, metrics | {"divergence": jax.lax.stop_gradient(divergence)}

    return base.Algorithm(init, loss, adapt, predict)


def refuse_gaussian_of_classes(config: Config, problem: base.Problem) -> None:
    """Refuse a Gaussian likelihood of class labels.

    Raises:
      ValueError: the targets are classes, and the likelihood is Gaussian.
    """
    if problem.spec.targets == "classes" and config.likelihood == "gaussian":
        raise ValueError(
            "likelihood gaussian is for regression, and the targets are classes",
            "set likelihood to objective",
        )


def init_layers(config: Config, model: base.Model, outputs: int, key, inputs: base.PyTree) -> base.PyTree:
    """Return the body, the decoder, and the networks of the paths that the config has."""
    keys = jax.random.split(key, 5)
    body = backbone.init_body(model, keys[0], inputs)
    features, width = backbone.count_features(model, body, inputs), config.width
    hidden = [width] * config.depth
    encoder_sizes = [features + outputs, *hidden]
    known = features + width * (config.has_values + config.has_latent)
    decoder_sizes = [known, *hidden[:-1], config.numbers_per_output * outputs]
    trained = {"body": body, "decoder": networks.init_perceptron(keys[1], decoder_sizes)}
    if config.has_values:
        trained["encoder"] = networks.init_perceptron(keys[2], encoder_sizes)
    if config.has_latent:
        trained["latent"] = {
            "encoder": networks.init_perceptron(keys[3], encoder_sizes),
            "gaussian": networks.init_perceptron(keys[4], [width, width, 2 * width]),
        }
    if config.summary == "attention":
        attention_key = jax.random.fold_in(key, 5)
        trained["attention"] = networks.init_attention(
            attention_key, features, features, width, width, alike=True
        )
    return trained


def count_outputs(config: Config, trained: base.PyTree) -> int:
    """Return the ways or dimensions that the weights were trained for; an evaluation may be in others."""
    return trained["decoder"][-1][base.BIAS].shape[0] // config.numbers_per_output


def infer_latent(layers: base.PyTree, pairs: Float[Array, "example feature"]) -> gaussian.Gaussian:
    """Return q(z | the examples) from [φ(x_i), y_i]."""
    summary = networks.perceptron(layers["encoder"], pairs).mean(axis=0)
    return gaussian.read_latent(networks.perceptron(layers["gaussian"], summary))


def recall(
    config: Config, learner: Learner, features: Float[Array, "query feature"]
) -> list[Float[Array, "query unit"]]:
    """Return what the decoder reads beside the features of a query: r and z, as far as the config has them."""
    known, queries = [], features.shape[0]
    if config.summary == "attention":
        attention = learner.trained["attention"]
        known.append(networks.attend(attention, config.heads, features, learner.keys, learner.values))
    elif config.has_values:
        known.append(jnp.tile(learner.values.mean(axis=0), (queries, 1)))
    if config.has_latent:
        known.append(jnp.tile(learner.latent, (queries, 1)))
    return known


def read_outputs(config: Config, decoded: Float[Array, "query number"]) -> Float[Array, "query output"]:
    """Return the outputs: the mean of a Gaussian, or what is decoded."""
    return gaussian.read_prediction(decoded).mean if config.likelihood == "gaussian" else decoded


def judge(config: Config, objective: base.Objective, decoded, query: base.Examples):
    """Return −log p of the query, and the objective's training metrics."""
    error, metrics = outer_loss.judge(objective, read_outputs(config, decoded), query)
    if config.likelihood == "gaussian":
        error = gaussian.negative_log_likelihood(gaussian.read_prediction(decoded), query.targets)
    return error, metrics
