"""Extraction: a base model is trained on all tasks pooled; then how it adapts is meta-learned on top of it.

From the body φ and the last layer W of the stage `pretrained`, one of two learners:

    learner: gradient    `inner_steps` steps on the support, θ ← θ − α_l ∇L_S(θ), from θ = (φ, W). Meta-training lowers
                         the query loss after them, and changes what is `free`: the body, the head, and one step size
                         α_l for each array. It is MAML (Finn et al. 2017, arXiv 1703.03400) from a pooled start, with
                         the step sizes of Meta-SGD (Li et al. 2017, 1707.09835) by array.
    learner: memory      φ and W stay. The support becomes a key-value memory (see `_keyvalue`), which says how the base
                         model is wrong nearby, with a learned gate λ (Khandelwal et al. 2019, 1911.00172):

                             regression        f(x) = W·φ(x) + λ Σ_i a_i(x) (y_i − W·φ(x_i))
                             classification    p(x) = (1 − λ)/ways + λ Σ_i a_i(x) onehot(y_i)

                         In classification the base model knows nothing of new classes: its share is uniform.

For classification the last layer begins anew: drawn at random where the head is free, at zero where it is not. With no
inner steps, or reads of the memory, the learner is the base model: that is "before adaptation" in every table.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, errors, trees
from metarun.algorithms import _features, _inner, _keyvalue, _network, _transfer
from metarun.base import PyTree
from metarun.ranges import Above, AtLeast

GATE = 2.0  # of which λ is the sigmoid at first: 0.88


@dataclass(frozen=True)
class Config:
    """The base model, and how it learns to adapt."""

    pretrained: str = "pretrain"  # name of the earlier stage whose network is the base model
    learner: Literal["gradient", "memory"] = "gradient"  # steps of descent, or a memory of the support
    inner_steps: Annotated[int, AtLeast(0)] = 1  # gradient steps on the support; reads of the memory
    inner_lr: Annotated[float, Above(0)] = 0.1  # gradient: every α_l at first, for a mean over the support
    free: tuple[Literal["body", "head", "rates"], ...] = (
        "body",
        "head",
        "rates",
    )  # gradient: what meta-training changes
    adapts: Literal["head", "all"] = "all"  # gradient: what the inner steps change
    inner_clip_norm: Annotated[float, Above(0)] | None = None  # gradient: its largest norm; null: any
    order: Literal["second", "first"] = "second"  # gradient: of the outer gradient
    loop: Literal["scan", "unroll"] = "unroll"  # gradient: scan compiles faster, unroll runs faster
    width: Annotated[int, AtLeast(1)] = 64  # memory: features of a key

    def __post_init__(self):
        if not self.free:
            raise ValueError("free is empty, and nothing would be learned", "give body, head or rates")
        if len(set(self.free)) < len(self.free):
            raise ValueError("free names one thing twice")


class Learner(NamedTuple):
    """The network adapted to one task, what it remembers, and the inputs that normalise its queries."""

    body: PyTree
    head: PyTree  # () where a classification has none
    memory: PyTree  # () where it is not used
    reference: PyTree


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions, on the earlier stage `pretrained`. Its init raises ConfigError where that has another model.

    Raises:
      ValueError: there is no such stage, or targets are neither labels nor numbers.
    """
    _transfer.refuse_missing(config.pretrained, earlier)
    labelled = _features.has_labels(objective)
    make = by_gradient if config.learner == "gradient" else by_memory
    init, adapt, predict = make(config, model, objective, labelled)

    def loss(weights: base.Weights, episode: base.Episode, key):
        outputs = predict(adapt(weights, episode.support), episode.query.inputs)
        return _inner.query_loss(objective, outputs, episode.query)

    return base.Algorithm(init, loss, adapt, predict)


def by_gradient(config: Config, model: base.Model, objective: base.Objective, labelled: bool):
    """(init, adapt, predict) of gradient steps; the weights are {"body", "head", "rates"}, in part frozen."""

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs = trees.first(episodes.support.inputs)
        start = base_network(config, model, labelled, earlier, inputs)
        if labelled:
            ways = _features.ways(model, objective, inputs)
            head = _network.init_dense(key, _features.width(model, start["body"], inputs), ways)
            start["head"] = head if "head" in config.free else jax.tree.map(jnp.zeros_like, head)
        fast = {name: part for name, part in start.items() if is_fast(config, name)}
        start["rates"] = jax.tree.map(lambda leaf: jnp.full((), config.inner_lr, leaf.dtype), fast)
        trained = {name: part for name, part in start.items() if name in config.free}
        return base.Weights(trained, {name: part for name, part in start.items() if name not in trained})

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        start, inputs = weights.trained | weights.frozen, support.inputs
        fast = {name: start[name] for name in ("body", "head") if is_fast(config, name)}

        def support_loss(fast):
            parts = start | fast
            features = model.embed(parts["body"], inputs, reference=inputs)
            return objective.loss(_network.dense(parts["head"], features), support.targets)

        def step(fast, _):
            slope = _inner.bounded(jax.grad(support_loss)(fast), config.inner_clip_norm, config.order)
            moved = jax.tree.map(lambda leaf, rate, s: leaf - rate * s, fast, start["rates"], slope)
            return moved, ()

        fast, _ = _inner.repeat(step, fast, (), config.inner_steps, config.loop)
        parts = start | fast
        return Learner(parts["body"], parts["head"], (), inputs)

    def predict(learner: Learner, inputs):
        return _network.dense(learner.head, model.embed(learner.body, inputs, reference=learner.reference))

    return init, adapt, predict


def by_memory(config: Config, model: base.Model, objective: base.Objective, labelled: bool):
    """(init, adapt, predict) of a memory: trains {"keys", "gate"}, over the frozen {"body", "head"}.

    Learners carry the trained weights in `memory`, beside what was written.
    """

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs = trees.first(episodes.support.inputs)
        start = base_network(config, model, labelled, earlier, inputs)
        keys = _keyvalue.init(key, _features.width(model, start["body"], inputs), config.width)
        return base.Weights(
            {"keys": keys, "gate": jnp.full((), GATE)}, start | ({"head": ()} if labelled else {})
        )

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        trained, body, head = weights.trained, weights.frozen["body"], weights.frozen["head"]
        features = model.embed(body, support.inputs, reference=support.inputs)
        if labelled:
            ways = _features.ways(model, objective, support.inputs)
            values = _features.as_numbers(support.targets, ways)
        else:
            values = support.targets - _network.dense(head, features)
        written = _keyvalue.write(trained["keys"], features, values)
        return Learner(body, head, {"written": written, **trained}, support.inputs)

    def predict(learner: Learner, inputs):
        features, memory = model.embed(learner.body, inputs, reference=learner.reference), learner.memory
        ways = memory["written"].values.shape[-1]
        gate = jax.nn.sigmoid(memory["gate"]) if config.inner_steps else 0.0
        found = jnp.zeros((features.shape[0], ways), features.dtype)
        if config.inner_steps:
            found = _keyvalue.read(memory["keys"], memory["written"], features, config.inner_steps)
        if labelled:
            return jnp.log((1 - gate) / ways + gate * found)
        return _network.dense(learner.head, features) + gate * found

    return init, adapt, predict


def is_fast(config: Config, part: str) -> bool:
    """Whether the inner steps change a part of the network."""
    return config.adapts == "all" or part == "head"


def base_network(config: Config, model: base.Model, labelled: bool, earlier, inputs) -> dict[str, PyTree]:
    """{"body"} of the stage `pretrained`, and its {"head"} in regression.

    Raises:
      ConfigError: the stage has another model, or in regression no last layer.
    """
    weights = earlier[config.pretrained]
    body = _transfer.body_of(config.pretrained, weights, model, inputs)
    if labelled:
        return {"body": body}
    if "head" not in weights.trained:
        raise errors.ConfigError(
            f"the stage {config.pretrained} has no last layer to start from in a regression",
            "algorithm.pretrained",
            "name a stage whose algorithm is pretrain",
        )
    return {"body": body, "head": weights.trained["head"]}
