"""The learner of `extraction` that takes gradient steps, with one learned step size for each array."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.base import PyTree
from metarun.blocks import backbone, inner_loop, networks, outer_loss, pretrained_body

if TYPE_CHECKING:
    from metarun.algorithms.extraction import Config


class Learner(NamedTuple):
    """The network adapted to one task, and the inputs that normalise its queries."""

    body: PyTree
    head: PyTree
    reference: PyTree


def build(config: "Config", model: base.Model, problem: base.Problem) -> base.Algorithm:
    """Build the four functions.

    Returns:
      An algorithm with the weights {"body", "head", "rates"}: those in `config.free` are trained, the others frozen.
    """

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs, weights = trees.first(episodes.support.inputs), earlier[config.pretrained]
        start = pretrained_body.extract_network(config.pretrained, weights, model, problem.spec, inputs)
        if base.HEAD not in start and config.head == "start":
            start[base.HEAD] = pretrained_body.extract_head(config.pretrained, weights, model, inputs)
        if base.HEAD not in start:
            features = backbone.count_features(model, start["body"], inputs)
            head = networks.init_dense(key, features, problem.spec.output_size)
            start[base.HEAD] = head if "head" in config.free else jax.tree.map(jnp.zeros_like, head)
        fast = select_fast(config, start)
        start["rates"] = jax.tree.map(lambda leaf: jnp.full((), config.inner_lr, leaf.dtype), fast)
        trained = {name: tree for name, tree in start.items() if name in config.free}
        return base.Weights(trained, {name: tree for name, tree in start.items() if name not in trained})

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        start, inputs = weights.trained | weights.frozen, support.inputs

        def support_loss(fast):
            network = start | fast
            features = model.embed(network["body"], inputs, reference=inputs)
            return problem.objective.loss(networks.dense(network[base.HEAD], features), support.targets)

        def finish(fast) -> Learner:
            network = start | fast
            return Learner(network["body"], network[base.HEAD], inputs)

        fast, gradient = select_fast(config, start), jax.grad(support_loss)
        return inner_loop.descend(config, gradient, fast, start["rates"], finish=finish, points=points)

    def predict(learner: Learner, inputs):
        return networks.dense(learner.head, model.embed(learner.body, inputs, reference=learner.reference))

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict, watch=adapt)


def select_fast(config: "Config", network: dict[str, PyTree]) -> dict[str, PyTree]:
    """Return what the inner steps change: {"head"}, with `adapts: all` {"body", "head"}."""
    names = ("body", base.HEAD) if config.adapts == "all" else (base.HEAD,)
    return {name: network[name] for name in names}
