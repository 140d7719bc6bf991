"""A network writes the learner's weights from the support; with inner steps it is the hybrid, which finishes them.

Ha, Dai, Le 2016, HyperNetworks, arXiv 1609.09106: one network g writes the weights of another. Here g reads the support
S as a set (Deep Sets, Zaheer et al. 2017, 1703.06114), so that adaptation to a task is one forward pass:

    θ_0 = θ + g(S; φ),      the learner is the model with θ_0.

`writes` says of which parts of the model: all of a small one, or of a large one the head alone, or the head and the
modulation of every layer by a vector that g writes (Perez et al. 2018, FiLM, 1709.07871). What is not written is θ.

The hybrid is the same with `inner_steps` above 0: g writes the start, gradient steps on the support loss L_S finish,

    θ_{k+1} = θ_k − α ∇L_S(θ_k),

and the outer objective is the query loss L_Q(θ_K). `order: second` differentiates through every inner step, into θ and
through the start into φ. α is `inner_lr`, or with `learned_lr` a number of each array that is trained too.

One outer gradient at (θ, φ) updates both. The proposal that this follows updates in turns, φ by ∇_φ L_Q and then θ by
∇_θ L_Q at the new φ, for twice the work: `training.turns: [[encoder, generator], params]`. The two differ in θ's step
alone, by the product of both learning rates with ∂²L_Q/∂θ∂φ, which is of second order in the rates, as a test measures.
Learning rates of their own: `training.part_rates: [{part: generator, factor: 0.1}]`; the parts are "params", "encoder",
"generator" and, with `learned_lr`, "rates".

Deviations from Ha et al.: one generator for all arrays, with one output a weight, where they have one that is called
for every layer with an embedding of the layer; θ is added, so that g may begin small: its last layer starts a tenth as
large as other layers.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metarun import base, errors, trees
from metarun.algorithms import _conditioning, _features, _inner
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config:
    """The network that writes, what it writes, and the steps that finish it."""

    writes: Literal["all", "head", "head_and_modulation"] = "all"  # of the model's parameters, by g
    inner_steps: Annotated[int, AtLeast(0)] = 0  # gradient steps on the support; 0: the hypernetwork alone
    inner_lr: Annotated[float, Above(0)] = 0.01  # α, or what it starts from where it is learned
    learned_lr: Literal["layer"] | None = None  # α that are learned, one for each array; null: α is fixed
    inner_clip_norm: Annotated[float, Above(0)] | None = None  # largest norm of an inner gradient; null: any
    width: Annotated[int, AtLeast(1)] = 64  # units of the hidden layers of g
    depth: Annotated[int, AtLeast(1)] = 2  # layers of g that read each example, before their mean
    embed: Annotated[int, AtLeast(1)] = 32  # numbers of the task's vector, from which the weights are written
    condition: Annotated[int, AtLeast(1)] = 16  # numbers that modulate the layers; head_and_modulation only
    order: Literal["second", "first"] = "second"  # of the outer gradient; first drops the Hessian
    loop: Literal["scan", "unroll"] = "unroll"  # of the inner steps: scan compiles faster, unroll runs faster
    rematerialise: bool = False  # recompute each inner step in the backward pass: less memory, more time


class Learner(NamedTuple):
    """The network written for one task, what modulates it, and the inputs that normalise its queries."""

    params: base.PyTree
    condition: base.PyTree  # [feature]; None without modulation
    reference: base.PyTree


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Returns:
      An algorithm that trains {"params", "encoder", "generator"}, and "rates" with `learned_lr`. Its init raises
      ConfigError where the model has no head, or takes no condition, and `writes` names it.

    Raises:
      ValueError: targets are neither labels nor numbers.
    """
    _features.has_labels(objective)
    modulated = config.writes == "head_and_modulation"
    no_condition = jnp.zeros(config.condition) if modulated else None

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        model_key, encoder_key, generator_key = jax.random.split(key, 3)
        support = trees.first(episodes.support)
        params = _conditioning.init_model(model, model_key, support.inputs, no_condition)
        refuse_without_head(config, params)
        like = written(config, params), no_condition
        sizes = _conditioning.Sizes(config.width, config.depth, config.embed)
        trained = {
            "params": params,
            "encoder": _conditioning.init_encoder(encoder_key, model, support, sizes),
            "generator": _conditioning.init_generator(
                generator_key, config.embed, config.width, trees.size(like)
            ),
        }
        if config.learned_lr:
            trained["rates"] = _conditioning.equal_rates(params, jnp.asarray(config.inner_lr))
        return base.Weights(trained)

    def start(trained, support: base.Examples):
        """(θ_0, condition)."""
        vector = _conditioning.encode(trained["encoder"], model, support)
        like = written(config, trained["params"]), no_condition
        offset, condition = _conditioning.generate(trained["generator"], vector, like)
        chosen, others = _inner.partition(trained["params"], lambda path: is_written(config, path))
        return _inner.merge(_conditioning.add(chosen, offset), others), condition

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        params, condition = start(weights.trained, support)

        def support_loss(params):
            outputs = model.apply(params, support.inputs, condition=condition, reference=support.inputs)
            return objective.loss(outputs, support.targets)

        rates = weights.trained.get("rates", _conditioning.equal_rates(params, config.inner_lr))
        params = _conditioning.descend(jax.grad(support_loss), params, rates, config)
        return Learner(params, condition, support.inputs)

    def predict(learner: Learner, inputs):
        return model.apply(learner.params, inputs, condition=learner.condition, reference=learner.reference)

    def loss(weights: base.Weights, episode: base.Episode, key):
        outputs = predict(adapt(weights, episode.support), episode.query.inputs)
        return _inner.query_loss(objective, outputs, episode.query)

    return base.Algorithm(init, loss, adapt, predict)


def is_written(config: Config, path: tuple[str, ...]) -> bool:
    """Whether g writes the parameters at a path."""
    return config.writes == "all" or path[:1] == (_features.HEAD,)


def written(config: Config, params: base.PyTree) -> base.PyTree:
    """The parameters that g writes, with None in place of the others."""
    return _inner.partition(params, lambda path: is_written(config, path))[0]


def refuse_without_head(config: Config, params: base.PyTree) -> None:
    """Raise ConfigError where g has nothing to write."""
    if not jax.tree.leaves(written(config, params)):
        raise errors.ConfigError(
            f"the model has no last layer `{_features.HEAD}` that could be written, and writes is {config.writes}",
            "algorithm.writes",
            "set writes: all, or take a model with a layer `head`",
        )
