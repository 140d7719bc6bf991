"""Fine-tuning: some gradient steps on the support, from a pre-trained network, without meta-learning.

From the body φ and the last layer of the stage `pretrained`, `inner_steps` steps of an optimizer on the loss of the
whole support. For classification the last layer begins anew, at zero, with one output a way; for regression it is the
pre-trained one. `adapts: head` leaves φ as it is ("Baseline" of Chen et al. 2019, arXiv 1904.04232), `adapts: all` does
not (Yosinski et al. 2014, 1411.1792). With 0 steps nothing is adapted.

The stage has nothing to train: give it `training: {steps: 1, tasks_per_step: 1}`. Its loss is the query loss after
adaptation, without a gradient.

Deviation: every step sees the whole support, where Chen et al. draw batches of 4.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, errors, trees
from metarun.algorithms import _features, _inner, _network, _transfer
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config:
    """From where, what, and how far."""

    pretrained: str = "pretrain"  # name of the earlier stage whose network is adapted
    adapts: Literal["head", "all"] = "head"  # the last layer, or the whole network
    inner_steps: Annotated[int, AtLeast(0)] = 100  # gradient steps on the support
    inner_lr: Annotated[float, Above(0)] = 0.01  # step size, for a loss that is the mean over the support
    inner_optimizer: Literal["sgd", "momentum", "rmsprop", "adam", "adam_without_momentum"] = (
        "momentum"  # whose direction the step size multiplies; moments 0.9, 0.999
    )


class Learner(NamedTuple):
    """The network adapted to one task, and the inputs that normalise its queries."""

    body: base.PyTree
    head: base.PyTree
    reference: base.PyTree


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions, on the earlier stage `pretrained`.

    Returns:
      An algorithm that trains nothing: its weights are the frozen {"body", "head"} of that stage. Its init raises
      ConfigError where that stage has another model, or in regression no last layer.

    Raises:
      ValueError: there is no such stage, or targets are neither labels nor numbers.
    """
    _transfer.refuse_missing(config.pretrained, earlier)
    labelled = _features.has_labels(objective)
    optimizer = _inner.OPTIMIZERS[config.inner_optimizer]()

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs, weights = trees.first(episodes.support.inputs), earlier[config.pretrained]
        body = _transfer.body_of(config.pretrained, weights, model, inputs)
        if labelled:
            return base.Weights((), {"body": body})
        if "head" not in weights.trained:
            raise errors.ConfigError(
                f"the stage {config.pretrained} has no last layer to fine-tune in a regression",
                "algorithm.pretrained",
                "name a stage whose algorithm is pretrain",
            )
        return base.Weights((), {"body": body, "head": weights.trained["head"]})

    def first_head(body, support: base.Examples):
        inputs = support.inputs
        features, ways = (
            _features.width(model, body, inputs),
            _features.ways(model, objective, inputs),
        )
        return {"kernel": jnp.zeros((features, ways)), "bias": jnp.zeros(ways)}

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        body, inputs = weights.frozen["body"], support.inputs
        head = first_head(body, support) if labelled else weights.frozen["head"]
        features = model.embed(body, inputs, reference=inputs)

        def support_loss(params):
            seen = (
                features if config.adapts == "head" else model.embed(params["body"], inputs, reference=inputs)
            )
            return objective.loss(_network.dense(params["head"], seen), support.targets)

        params = {"head": head} if config.adapts == "head" else {"head": head, "body": body}
        step = _inner.make_step(jax.grad(support_loss), optimizer, config.inner_lr, None, "first")
        start = params, optimizer.init(params)
        (params, _), _ = _inner.repeat(step, start, (), config.inner_steps, "scan")
        return Learner(params.get("body", body), params["head"], inputs)

    def predict(learner: Learner, inputs):
        return _network.dense(learner.head, model.embed(learner.body, inputs, reference=learner.reference))

    def loss(weights: base.Weights, episode: base.Episode, key):
        outputs = predict(adapt(weights, episode.support), episode.query.inputs)
        return _inner.query_loss(objective, outputs, episode.query)

    return base.Algorithm(init, loss, adapt, predict)
