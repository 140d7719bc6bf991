"""Fine-tuning: some gradient steps on the support, from a pre-trained network, without meta-learning.

The start is the body φ and the last layer of the stage `pretrained`; with `pretrained: null` it is that of the model
itself, such as one that begins from a file of weights. Each of `inner_steps` steps of an optimizer lowers the loss of
the whole support. In a regression the last layer is the pre-trained one; in a classification it begins anew, at zero,
with one output for each way. `adapts` says what changes beside the last layer:

    head    nothing ("Baseline" of Chen et al. 2019, arXiv 1904.04232)
    film    the scales and offsets of all normalisations, as in FiT (Shysheya et al. 2022, 2206.08671)
    lora    an update of low `rank` to each kernel of φ (Hu et al. 2021, 2106.09685); see metarun/blocks/low_rank.py
    all     the whole of φ (Yosinski et al. 2014, 1411.1792)

With 0 steps nothing is adapted. The stage has nothing to train, and needs no `training`. Its loss is the query loss
after adaptation, without a gradient.

Deviations: every step sees the whole support, where Chen et al. draw batches of 4. FiT answers by class means with a
covariance; here all four have the same dense layer, so that they differ in what adapts alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.blocks import (
    backbone,
    earlier_stages,
    inner_loop,
    low_rank,
    networks,
    outer_loss,
    parameter_kinds,
    pretrained_body,
    target_kinds,
)
from metarun.options import InnerLoop, InnerSteps
from metarun.ranges import AtLeast

EXAMPLE = base.Example(earlier=("pretrain",))


@dataclass(frozen=True)
class Config(InnerSteps):
    """The start, and how far the support moves it."""

    # Name of the earlier stage whose network is adapted; null: that which the model begins with.
    pretrained: str | None = "pretrain"
    # What adapts beside the last layer: nothing (head), the scales and offsets of the normalisations (film), an update
    # of low rank to each kernel (lora), or the whole network (all).
    adapts: Literal["head", "film", "lora", "all"] = "head"
    rank: Annotated[int, AtLeast(1)] = 4  # of the updates of lora
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


class Part(NamedTuple):
    """The part of a body that adapts."""

    start: base.PyTree  # its first value; None: nothing adapts
    join: Callable[[base.PyTree], base.PyTree]  # its value -> the body


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions on the earlier stage `pretrained`, or on the model as it begins.

    Returns:
      An algorithm that trains nothing: its weights are the frozen {"body", "head"} it starts from, and with lora
      {"factors"}. Its init raises ConfigError if the stage has another model, or no last layer in a regression, or if
      the model has nothing of what is to adapt.

    Raises:
      ValueError: there is no such stage, or the targets are sentences.
    """
    if config.pretrained is not None:
        earlier_stages.find("pretrained", config.pretrained, earlier)
    target_kinds.refuse_tokens(problem)
    optimizer = inner_loop.OPTIMIZERS[config.inner_optimizer]()
    steps = InnerLoop(config.inner_steps, config.inner_lr, config.inner_clip_norm, config.loop, order="first")

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs, stage = trees.first(episodes.support.inputs), config.pretrained
        if stage is None:
            network = pretrained_body.begin_network(model, key, problem.spec, inputs)
        else:
            network = pretrained_body.extract_network(stage, earlier[stage], model, problem.spec, inputs)
        if config.adapts == "film":
            remedy = "algorithm.adapts: lora"
            parameter_kinds.refuse_without_normalisation(network["body"], "adapts", remedy)
        if config.adapts == "lora":
            network["factors"] = low_rank.init(jax.random.fold_in(key, 1), network["body"], config.rank)
        return base.Weights((), network)

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        body, inputs = weights.frozen["body"], support.inputs
        head = weights.frozen.get(base.HEAD) or init_head(model, body, inputs, problem.spec.output_size)
        part = select_part(config.adapts, weights.frozen)
        frozen_features = model.embed(body, inputs, reference=inputs)

        def support_loss(params):
            features = frozen_features
            if part.start is not None:
                features = model.embed(part.join(params["part"]), inputs, reference=inputs)
            return problem.objective.loss(networks.dense(params[base.HEAD], features), support.targets)

        def finish(params) -> Learner:
            return Learner(part.join(params["part"]), params[base.HEAD], inputs)

        gradient, params = jax.grad(support_loss), {base.HEAD: head, "part": part.start}
        return inner_loop.descend(steps, gradient, params, optimizer=optimizer, finish=finish, points=points)

    def predict(learner: Learner, inputs):
        return networks.dense(learner.head, model.embed(learner.body, inputs, reference=learner.reference))

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict, watch=adapt)


def select_part(adapts: str, frozen: base.PyTree) -> Part:
    """Return what adapts of a body, as `Config.adapts` says.

    Args:
      frozen: {"body"} of the learner, and with lora {"factors"}.
    """
    body = frozen["body"]
    if adapts == "head":
        return Part(None, lambda _: body)
    if adapts == "all":
        return Part(body, lambda value: value)
    if adapts == "lora":
        return Part(frozen["factors"], lambda value: low_rank.update(body, value))
    places = parameter_kinds.find_normalisation(body)
    chosen, others = trees.partition(body, lambda path: path in places)
    return Part(chosen, lambda value: trees.merge(value, others))


def init_head(model: base.Model, body: base.PyTree, inputs: base.PyTree, ways: int) -> base.PyTree:
    """Return a last layer of zeros, whose logits are all equal."""
    features = backbone.count_features(model, body, inputs)
    return {base.KERNEL: jnp.zeros((features, ways)), base.BIAS: jnp.zeros(ways)}
