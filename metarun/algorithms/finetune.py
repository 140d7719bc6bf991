"""Fine-tuning: some gradient steps on the support, from a pre-trained network, without meta-learning.

The start is the body φ and the last layer of the stage `pretrained`. Each of `inner_steps` steps of an optimizer lowers
the loss of the whole support. In a regression the last layer is the pre-trained one; in a classification it begins
anew, at zero, with one output for each way. `adapts: head` leaves φ as it is ("Baseline" of Chen et al. 2019, arXiv
1904.04232), `adapts: all` does not (Yosinski et al. 2014, 1411.1792). With 0 steps nothing is adapted.

The stage has nothing to train, and needs no `training`. Its loss is the query loss after adaptation, without a
gradient.

Deviation: every step sees the whole support, where Chen et al. draw batches of 4.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.blocks import (
    backbone,
    earlier_stages,
    inner_loop,
    networks,
    outer_loss,
    pretrained_body,
    target_kinds,
)
from metarun.options import InnerLoop, InnerSteps
from metarun.ranges import AtLeast

EXAMPLE = base.Example(earlier=("pretrain",))


@dataclass(frozen=True)
class Config(InnerSteps):
    """The start, and how far the support moves it."""

    pretrained: str = "pretrain"  # name of the earlier stage whose network is adapted
    adapts: Literal["head", "all"] = "head"  # the last layer, or the whole network
    inner_steps: Annotated[int, AtLeast(0)] = 100  # gradient steps on the support
    # The optimizer whose direction the step size multiplies; moments 0.9, 0.999.
    inner_optimizer: Literal["sgd", "momentum", "rmsprop", "adam", "adam_without_momentum"] = "momentum"
    loop: Literal["scan", "unroll"] = "scan"  # of the inner steps: scan compiles faster, unroll runs faster

    @property
    def trains_nothing(self) -> bool:
        """Whether a stage has nothing to train, and so needs no `training`."""
        return True


class Learner(NamedTuple):
    """The network adapted to one task, and the inputs that normalise its queries."""

    body: base.PyTree
    head: base.PyTree
    reference: base.PyTree


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions on the earlier stage `pretrained`.

    Returns:
      An algorithm that trains nothing: its weights are the frozen {"body", "head"} of that stage. Its init raises
      ConfigError if that stage has another model, or no last layer in a regression.

    Raises:
      ValueError: there is no such stage, or the targets are sentences.
    """
    earlier_stages.find("pretrained", config.pretrained, earlier)
    target_kinds.refuse_tokens(problem)
    optimizer = inner_loop.OPTIMIZERS[config.inner_optimizer]()
    steps = InnerLoop(config.inner_steps, config.inner_lr, config.inner_clip_norm, config.loop, order="first")

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs, weights = trees.first(episodes.support.inputs), earlier[config.pretrained]
        network = pretrained_body.extract_network(config.pretrained, weights, model, problem.spec, inputs)
        return base.Weights((), network)

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        body, inputs = weights.frozen["body"], support.inputs
        head = weights.frozen.get(base.HEAD) or init_head(model, body, inputs, problem.spec.output_size)
        pretrained_features = model.embed(body, inputs, reference=inputs)

        def support_loss(params):
            features = pretrained_features
            if config.adapts == "all":
                features = model.embed(params["body"], inputs, reference=inputs)
            return problem.objective.loss(networks.dense(params[base.HEAD], features), support.targets)

        params = {base.HEAD: head} if config.adapts == "head" else {base.HEAD: head, "body": body}

        def finish(params) -> Learner:
            return Learner(params.get("body", body), params[base.HEAD], inputs)

        gradient = jax.grad(support_loss)
        return inner_loop.descend(steps, gradient, params, optimizer=optimizer, finish=finish, points=points)

    def predict(learner: Learner, inputs):
        return networks.dense(learner.head, model.embed(learner.body, inputs, reference=learner.reference))

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict, watch=adapt)


def init_head(model: base.Model, body: base.PyTree, inputs: base.PyTree, ways: int) -> base.PyTree:
    """Return a last layer of zeros, whose logits are all equal."""
    features = backbone.count_features(model, body, inputs)
    return {base.KERNEL: jnp.zeros((features, ways)), base.BIAS: jnp.zeros(ways)}
