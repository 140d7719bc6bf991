"""An inner loop whose step sizes and decays are generated at each step, from the learner's gradients and weights.

Baik et al. 2020, ALFA, arXiv 2011.00209. For each array l of the parameters (a kernel, a bias) and each inner step j,

    θ_{j+1,l} = β_{j,l} · θ_{j,l} − α_{j,l} · ∇L_S(θ_j)_l,      (α_j, β_j) = (a, b) ∘ (1 + g(τ_j)),

where τ_j holds the mean gradient and the mean weight of every array, and g is a perceptron with one hidden layer as
wide as τ. a and b are learned, one number of each for every array; a starts from `inner_lr` and b from 1. The outer
objective is the query loss after the last step. It trains g, a, b and, with `initial: learned`, the start θ_0. With
`initial: random` θ_0 stays as it was drawn, as in the paper's "ALFA + random initialisation".

Deviations: the paper writes (α_j, β_j) = g(τ_j). The factors a and b and the 1 are ours: with them the inner loop is
about that of MAML before training, because the last layer of g begins a tenth as large as other layers. Clipping by
`inner_clip_norm` is ours too; τ then holds the clipped gradient.

The authors' code differs from the paper's text in four ways, and each is an option: the generator takes the gradients
for constants (`constant_gradient: true`); the decay is 1 − b·g with b from 5e-4·`inner_lr`, so that it starts next to
none (`decay: subtracted`); each inner step has its own a and b (`per_step: true`); and scales and offsets of the
normalisation do not adapt (`adapts_normalisation: false`). There α is a·g, with no 1; here the 1 stays.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.blocks import inner_loop, networks, outer_loss, parameter_kinds, weight_generator
from metarun.blocks.inner_loop import Learner
from metarun.options import InnerLoop
from metarun.ranges import Above, AtLeast

FIRST_DECAY = 5e-4  # of b with `decay: subtracted`, as a share of `inner_lr`; the authors' setting


@dataclass(frozen=True)
class Config(InnerLoop):
    """The inner loop."""

    inner_steps: Annotated[int, AtLeast(0)] = 5  # gradient steps on the support; 0: none
    # First value of a, for a loss that is the mean over the support.
    inner_lr: Annotated[float, Above(0)] = 0.01
    initial: Literal["learned", "random"] = "learned"  # the start of every task: trained, or as it was drawn
    # The decay β. factor: b·(1 + g) with b from 1; subtracted: 1 − b·g with b from 5e-4 times `inner_lr`.
    decay: Literal["factor", "subtracted"] = "factor"
    per_step: bool = False  # each inner step has its own a and b; later steps take those of the last one
    constant_gradient: bool = False  # the generator takes the gradients that it reads for constants
    adapts_normalisation: bool = True  # false: all tasks share the scales and offsets of the normalisation


EXAMPLE = base.Example(options={"inner_steps": 2, "inner_lr": 0.02})


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return ALFA's functions. It needs no earlier stage.

    Returns:
      An algorithm that trains {"generator", "rates" [array], "decays" [array]}, with the inner step as first axis of
      the last two if they are `per_step`. The start "params" is among them, or frozen.
    """
    support_loss = inner_loop.make_support_loss(model, problem.objective)
    predict = inner_loop.make_predict(model)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        model_key, generator_key = jax.random.split(key)
        params = model.init(model_key, trees.first(episodes.support.inputs))
        if not config.adapts_normalisation:
            parameter_kinds.refuse_without_normalisation(
                params, "adapts_normalisation", "adapts_normalisation: true"
            )
        adapting, _ = partition(config, params)
        trained = init_generator(config, generator_key, len(jax.tree.leaves(adapting)))
        if config.initial == "random":
            return base.Weights(trained, params)
        return base.Weights(trained | {"params": params})

    def descend(weights: base.Weights, params, support: base.Examples, points: base.Points | None):
        adapting, fixed = partition(config, params)
        trained = weights.trained
        rows = {name: trained[name] for name in ("rates", "decays")} if config.per_step else {}

        def step(adapting, row):
            gradient = jax.grad(lambda leaves: support_loss(trees.merge(leaves, fixed), support))(adapting)
            gradient = inner_loop.bound(config, gradient, config.order == "first")
            return take_step(config, trained | row, adapting, gradient), ()

        def finish(adapting):
            return Learner(trees.merge(adapting, fixed), support.inputs)

        rows = inner_loop.select_rows(rows, inner_loop.count_steps(config, points))
        return inner_loop.run(config, step, adapting, finish, points, config.rematerialise, rows)

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        start = weights.trained["params"] if config.initial == "learned" else weights.frozen
        return descend(weights, start, support, points)

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        return descend(weights, learner.params, support, None)

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict, update, watch=adapt)


def partition(config: Config, params: base.PyTree) -> tuple[base.PyTree, base.PyTree]:
    """Return what adapts and what does not, each with None in place of the other."""
    fixed = frozenset() if config.adapts_normalisation else parameter_kinds.find_normalisation(params)
    return trees.partition(params, lambda path: path not in fixed)


def init_generator(config: Config, key, arrays: int) -> dict[str, base.PyTree]:
    """Return g, a and b for parameters of so many arrays."""
    generator = weight_generator.init(key, 2 * arrays, 2 * arrays, 2 * arrays)
    shape = (max(config.inner_steps, 1), arrays) if config.per_step else (arrays,)
    dtype = generator[0][base.BIAS].dtype
    first_decay = 1.0 if config.decay == "factor" else FIRST_DECAY * config.inner_lr
    return {
        "generator": generator,
        "rates": jnp.full(shape, config.inner_lr, dtype),
        "decays": jnp.full(shape, first_decay, dtype),
    }


def take_step(config: Config, trained, params: base.PyTree, gradient: base.PyTree) -> base.PyTree:
    """Return the parameters after one inner step."""
    rates, decays = generate_rates(config, trained, params, gradient)
    leaves, structure = jax.tree.flatten(params)
    slopes = jax.tree.leaves(gradient)
    moved = [decays[index] * leaf - rates[index] * slopes[index] for index, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, moved)


def generate_rates(config: Config, trained, params: base.PyTree, gradient: base.PyTree):
    """Return (α, β) of one inner step, each [array]."""
    slopes = average_arrays(gradient)
    slopes = jax.lax.stop_gradient(slopes) if config.constant_gradient else slopes
    state = jnp.concatenate([slopes, average_arrays(params)])
    of_rates, of_decays = jnp.split(networks.perceptron(trained["generator"], state), 2)
    rates = trained["rates"] * (1 + of_rates)
    if config.decay == "subtracted":
        return rates, 1 - trained["decays"] * of_decays
    return rates, trained["decays"] * (1 + of_decays)


def average_arrays(tree: base.PyTree):
    """Return the mean of every array, [array]."""
    return jnp.stack([leaf.mean() for leaf in jax.tree.leaves(tree)])
