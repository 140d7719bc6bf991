"""Neural processes: an encoder reads the support into a representation, a decoder answers from it.

With φ the body of the model and h, g perceptrons, each support example becomes r_i = h(φ(x_i), y_i), and a query x
is answered by g(φ(x), r, z). What r and z are:

    path: deterministic                        r = mean of the r_i, no z        conditional neural process
    path: latent                               no r, z ~ q(z | mean of r_i)     neural process
    path: deterministic, summary: attention    r = attention of x over the r_i
    path: both, summary: attention             both of them                     attentive neural process

Garnelo et al. 2018, arXiv 1807.01613 and 1807.01622; Kim et al. 2019, arXiv 1901.05761. Nothing is differentiated at
test time. The outer objective is the query loss; with z the bound on the likelihood of the query Q given the support S,
a mean over the queries:

    −log p(y | x, r, z) + KL(q(z | S ∪ Q) ‖ q(z | S)) / |Q|,    z ~ q(z | S ∪ Q).

Deviations: `likelihood: objective` takes the family's own loss for −log p: for regression the squared error, which is a
Gaussian of variance ½ up to a constant. The papers' Gaussian with a learned deviation is `likelihood: gaussian`. A
learner predicts with the mean of q(z | S), without drawing. Classes enter the encoder as one of `ways` ones. The
attentive paper's self-attention of the support is left out. φ is shared by encoder and decoder. The projections of
queries and keys begin equal (the authors' code shares a perceptron between them): drawn apart, the classes of Omniglot
stayed at chance for 2,000 steps (5-way 1-shot, Adam 3e-3, 32 tasks a step; 600 steps at 3e-4 did not help).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.algorithms import _features, _network
from metarun.ranges import AtLeast

LEAST_DEVIATION = 0.1  # of a prediction, in the units of the targets: Kim et al. 2019, appendix A


@dataclass(frozen=True)
class Config:
    """The paths from the support to a prediction."""

    path: Literal["deterministic", "latent", "both"] = "deterministic"  # from the support to the decoder
    summary: Literal["mean", "attention"] = "mean"  # of the support, on the deterministic path
    likelihood: Literal["objective", "gaussian"] = "objective"  # gaussian learns a deviation, for regression
    width: Annotated[int, AtLeast(1)] = 128  # units of every layer, of r and of z
    depth: Annotated[int, AtLeast(1)] = 3  # layers of the encoder, and of the decoder
    heads: Annotated[int, AtLeast(1)] = 8  # of the attention; divides the width

    def __post_init__(self):
        if self.path == "latent" and self.summary == "attention":
            raise ValueError(
                "attention is on the deterministic path, and path latent has none",
                "set path to deterministic or both",
            )
        if self.summary == "attention" and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")


class Gaussian(NamedTuple):
    """Independent normal distributions."""

    mean: base.PyTree
    deviation: base.PyTree


class Learner(NamedTuple):
    """What the support has been read into."""

    trained: base.PyTree
    reference: base.PyTree  # the support's inputs
    keys: base.PyTree  # φ(x_i), [example, feature]
    values: base.PyTree  # r_i, [example, feature]; () without a deterministic path
    latent: base.PyTree  # z, [feature]; () without a latent path


def divergence(left: Gaussian, right: Gaussian):
    """KL(left ‖ right), in nats, summed over the dimensions."""
    ratio = left.deviation / right.deviation
    distance = (left.mean - right.mean) / right.deviation
    return jnp.sum(0.5 * (ratio**2 + distance**2 - 1) - jnp.log(ratio))


def negative_log_likelihood(of: Gaussian, targets):
    """−log p(targets), in nats, the mean over examples and dimensions."""
    distance = (targets - of.mean) / of.deviation
    return jnp.mean(0.5 * distance**2 + jnp.log(of.deviation) + 0.5 * math.log(2 * math.pi))


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Returns:
      An algorithm whose learner is a `Learner`; with a latent path, `divergence` is among the loss metrics.

    Raises:
      ValueError: a Gaussian of class labels, or targets that are neither labels nor numbers.
    """
    if _features.has_labels(objective) and config.likelihood == "gaussian":
        raise ValueError(
            "likelihood gaussian is for regression, and the targets are classes",
            "set likelihood to objective",
        )
    deterministic, latent = config.path != "latent", config.path != "deterministic"
    per_output = 2 if config.likelihood == "gaussian" else 1  # numbers that the decoder gives

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs, targets = trees.first(episodes.support)
        keys = jax.random.split(key, 5)
        body = _features.init_body(model, keys[0], inputs)
        features = _features.width(model, body, inputs)
        outputs = _features.output_size(model, inputs)
        hidden = [config.width] * config.depth
        pair = features + _features.as_numbers(targets, outputs).shape[-1]
        known = features + config.width * (deterministic + latent)
        trained = {
            "body": body,
            "decoder": _network.init_perceptron(keys[1], [known, *hidden[:-1], per_output * outputs]),
        }
        if deterministic:
            trained["encoder"] = _network.init_perceptron(keys[2], [pair, *hidden])
        if latent:
            trained["latent"] = {
                "encoder": _network.init_perceptron(keys[3], [pair, *hidden]),
                "gaussian": _network.init_perceptron(keys[4], [config.width, config.width, 2 * config.width]),
            }
        if config.summary == "attention":
            trained["attention"] = _network.init_attention(
                jax.random.fold_in(key, 5), features, features, config.width, config.width, alike=True
            )
        return base.Weights(trained)

    def output_size(trained) -> int:
        return trained["decoder"][-1]["bias"].shape[0] // per_output

    def pairs(trained, examples: base.Examples, reference):
        """φ(x_i), and beside y_i."""
        keys = model.embed(trained["body"], examples.inputs, reference=reference)
        return keys, jnp.concatenate(
            [keys, _features.as_numbers(examples.targets, output_size(trained))], axis=-1
        )

    def latent_of(trained, read) -> Gaussian:
        """q(z | the examples), of their pairs [example, feature]."""
        layers = trained["latent"]
        summary = _network.perceptron(layers["encoder"], read).mean(axis=0)
        mean, raw = jnp.split(_network.perceptron(layers["gaussian"], summary), 2)
        return Gaussian(mean, 0.1 + 0.9 * jax.nn.sigmoid(raw))  # as Kim et al. bound it

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        trained = weights.trained
        keys, read = pairs(trained, support, support.inputs)
        values = _network.perceptron(trained["encoder"], read) if deterministic else ()
        z = latent_of(trained, read).mean if latent else ()
        return Learner(trained, support.inputs, keys, values, z)

    def decode(learner: Learner, inputs):
        trained = learner.trained
        features = model.embed(trained["body"], inputs, reference=learner.reference)
        known = [features]
        if config.summary == "attention":
            known.append(
                _network.attend(trained["attention"], config.heads, features, learner.keys, learner.values)
            )
        elif deterministic:
            known.append(jnp.tile(learner.values.mean(axis=0), (features.shape[0], 1)))
        if latent:
            known.append(jnp.tile(learner.latent, (features.shape[0], 1)))
        return _network.perceptron(trained["decoder"], jnp.concatenate(known, axis=-1))

    def distribution(decoded) -> Gaussian:
        mean, raw = jnp.split(decoded, 2, axis=-1)
        return Gaussian(mean, LEAST_DEVIATION + (1 - LEAST_DEVIATION) * jax.nn.softplus(raw))

    def outputs_of(decoded):
        return distribution(decoded).mean if config.likelihood == "gaussian" else decoded

    def predict(learner: Learner, inputs):
        return outputs_of(decode(learner, inputs))

    def loss(weights: base.Weights, episode: base.Episode, key):
        support, query = episode.support, episode.query
        learner, extra, penalty = adapt(weights, support), {}, 0.0
        if latent:
            prior, posterior = (
                latent_of(weights.trained, pairs(weights.trained, examples, support.inputs)[1])
                for examples in (support, _features.join(support, query))
            )
            noise = jax.random.normal(key, posterior.mean.shape)
            learner = learner._replace(latent=posterior.mean + posterior.deviation * noise)
            extra["divergence"] = divergence(posterior, prior)
            penalty = extra["divergence"] / query.targets.shape[0]
        decoded = decode(learner, query.inputs)
        outputs = outputs_of(decoded)
        if config.likelihood == "gaussian":
            fit = negative_log_likelihood(distribution(decoded), query.targets)
        else:
            fit = objective.loss(outputs, query.targets)
        metrics = objective.training_metrics(outputs, query.targets) | extra
        return fit + penalty, jax.lax.stop_gradient(metrics)

    return base.Algorithm(init, loss, adapt, predict)
