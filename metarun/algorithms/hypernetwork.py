"""A network writes the learner's weights from the support; with inner steps it is the hybrid, which finishes them.

Ha, Dai, Le 2016, HyperNetworks, arXiv 1609.09106: one network g writes the weights of another. Here g reads the support
S as a set (Deep Sets, Zaheer et al. 2017, 1703.06114), so that adaptation to a task is one forward pass:

    θ_0 = θ + g(S; φ),      the learner is the model with θ_0.

`writes` says which parameters of the model: all of a small one, or of a large one the head alone, or the head and the
modulation of every layer by a vector that g writes (Perez et al. 2018, FiLM, 1709.07871). What is not written is θ.

The hybrid is the same with `inner_steps` above 0: g writes the start, gradient steps on the support loss L_S finish,

    θ_{k+1} = θ_k − α ∇L_S(θ_k),

and the outer objective is the query loss L_Q(θ_K). `order: second` differentiates through every inner step, into θ and
through the start into φ. α is `inner_lr`, or with `learned_lr` one trained number for each array.

One outer gradient at (θ, φ) updates both. The proposal that this follows updates in turns, φ by ∇_φ L_Q and then θ by
∇_θ L_Q at the new φ, for twice the work: `training.turns: [[encoder, generator], params]`. The two differ in θ's step
alone, by the product of both learning rates with ∂²L_Q/∂θ∂φ, which is of second order in the rates, as a test measures.
Each part may have a learning rate of its own: `training.part_rates: [{part: generator, factor: 0.1}]`; the parts are
"params", "encoder", "generator" and, with `learned_lr`, "rates".

Deviations from Ha et al.: one generator for all arrays, with one output a weight, where they have one that is called
for every layer with an embedding of the layer; θ is added, so that g may begin small: its last layer starts a tenth as
large as other layers.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from metarun import base, errors, trees
from metarun.blocks import inner_loop, modulation, outer_loss, set_encoder, target_kinds, weight_generator
from metarun.blocks.inner_loop import Learner
from metarun.options import InnerLoop, SetEncoder
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config(InnerLoop, SetEncoder):
    """The network that writes, what it writes, and the steps that finish it."""

    inner_steps: Annotated[int, AtLeast(0)] = 0  # gradient steps on the support; 0: the hypernetwork alone
    inner_lr: Annotated[float, Above(0)] = 0.01  # α, or the first value of a learned α
    learned_lr: Literal["layer"] | None = None  # layer: α is learned, one for each array; null: α is fixed
    writes: Literal["all", "head", "head_and_modulation"] = "all"  # which parameters of the model g writes
    condition: Annotated[int, AtLeast(1)] = 16  # numbers that modulate the layers; head_and_modulation only


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return the functions of a hypernetwork or a hybrid. It needs no earlier stage.

    Returns:
      An algorithm that trains {"params", "encoder", "generator"}, and "rates" with `learned_lr`. Its learner is a
      `Learner`, with a condition if g writes one. Its init raises ConfigError if `writes` names a head or a
      modulation, and the model has no head or takes no condition.

    Raises:
      ValueError: the targets are neither labels nor numbers.
    """
    target_kinds.refuse_tokens(problem)
    support_loss = inner_loop.make_support_loss(model, problem.objective)
    predict = inner_loop.make_predict(model)
    first_condition = jnp.zeros(config.condition) if config.writes == "head_and_modulation" else None

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        model_key, encoder_key, generator_key = jax.random.split(key, 3)
        inputs = trees.first(episodes.support.inputs)
        params = modulation.init_params(model, model_key, inputs, first_condition)
        refuse_missing_head(config, params)
        size = trees.size((select_written(config, params), first_condition))
        trained = {
            "params": params,
            "encoder": set_encoder.init(config, encoder_key, model, inputs, problem.spec),
            "generator": weight_generator.init(generator_key, config.embed, config.width, size),
        }
        if config.learned_lr:
            trained["rates"] = modulation.repeat_rate(params, jnp.asarray(config.inner_lr))
        return base.Weights(trained)

    def write(trained, support: base.Examples):
        """Return (θ_0, condition)."""
        vector = set_encoder.encode(trained["encoder"], model, support, problem.spec)
        written, others = trees.partition(trained["params"], lambda path: is_written(config, path))
        offset, condition = weight_generator.generate(
            trained["generator"], vector, (written, first_condition)
        )
        return trees.merge(jax.tree.map(jnp.add, written, offset), others), condition

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        start, condition = write(weights.trained, support)
        rates = weights.trained.get("rates", modulation.repeat_rate(start, config.inner_lr))
        gradient = jax.grad(lambda params: support_loss(params, support, condition))

        def finish(params) -> Learner:
            return Learner(params, support.inputs, condition)

        return modulation.descend(config, gradient, start, rates, finish, points)

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict, watch=adapt)


def is_written(config: Config, path: tuple[str, ...]) -> bool:
    """Return whether g writes the parameters at a path."""
    return config.writes == "all" or path[:1] == (base.HEAD,)


def select_written(config: Config, params: base.PyTree) -> base.PyTree:
    """Return the parameters that g writes, with None in place of the others."""
    return trees.partition(params, lambda path: is_written(config, path))[0]


def refuse_missing_head(config: Config, params: base.PyTree) -> None:
    """Raise ConfigError if g has nothing to write."""
    if not jax.tree.leaves(select_written(config, params)):
        raise errors.ConfigError(
            f"the model has no last layer `{base.HEAD}` that could be written, and writes is {config.writes}",
            "algorithm.writes",
            f"set writes: all, or take a model with a layer `{base.HEAD}`",
        )
