"""Model-agnostic meta-learning: learn a start from which a few gradient steps fit a task.

Finn, Abbeel, Levine 2017, arXiv 1703.03400. The inner loop descends the support loss L_S from the start θ,

    θ_0 = θ,    θ_{k+1} = θ_k − α_k ∘ ∇L_S(θ_k),

and the outer objective is the query loss L_Q(θ_K). `order: second` differentiates through every inner step;
`order: first` (FOMAML) takes ∂θ_K/∂θ for the identity, which drops the Hessian term.

Some published methods are this formula with other settings. Each has a config of its name:

- ANIL (Raghu et al. 2019, 1909.09157): `adapts: head`; BOIL (Oh et al. 2020, 2008.08882): `adapts: body`.
- Meta-SGD (Li et al. 2017, 1707.09835): `learned_lr: parameter`. Every α starts from `inner_lr`, where the paper draws
  one number for all from [0.005, 0.1].
- MAML++ (Antoniou et al. 2018, 1810.09502): `learned_lr: layer_and_step`, `outer_loss: annealed`,
  `normalisation_per_step: true` and a cosine schedule of the outer optimizer. As in the authors' code a rate belongs
  to one array (a kernel, a bias), scales and offsets of the normalisation do not adapt, and the multi-step loss moves
  from equal weights to the last step over the first tenth of the training. Different here: statistics are those of the
  batch or of the support, so that there are none to keep for each step (the authors' code keeps running ones for each
  step, and never reads them); there is no annealing from first order to second (the authors' Omniglot settings have
  none).

The MAML authors' own code for Omniglot has an offset in each normalisation and no scale, the offset does not adapt, and
the last layer starts from N(0, 1): `adapts_normalisation: false`, with `scale: false` and `head_deviation: 1.0` of the
model `conv4`.

With `inner_loss: mean` L_S is the mean over the support. The MAML authors' code sums the means of the classes, which is
`inner_loss: sum`: the mean times the number of outputs. Its 0.4 in 5 ways, and its 0.1 in 20, are 2.0 for the mean.

`inner_clip_norm` is ours. Where α is above what the curvature of a task allows, every step after the trained ones is
further off than the step before, up to infinity; a bounded gradient keeps the learner near.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from metarun import base, errors, trees
from metarun.blocks import inner_loop, outer_loss, parameter_kinds
from metarun.blocks.inner_loop import Learner
from metarun.options import InnerLoop
from metarun.ranges import Above

ANNEALING = 0.1  # share of the outer steps in which the multi-step loss moves to the last inner step
LEAST_SHARE = 0.03  # of an inner step's first weight: its least weight while there is a multi-step loss


@dataclass(frozen=True)
class Config(InnerLoop):
    """The inner loop, and what of it is learned."""

    inner_lr: Annotated[float, Above(0)] = 0.01  # α, or the first value of a learned α
    # Which α are learned: one in all, one for each array, one for each number of an array, or one for each array and
    # step. Steps beyond those of the training take the last step's. null: α is fixed.
    learned_lr: Literal["global", "layer", "parameter", "layer_and_step"] | None = None
    # Loss over the support; sum: the mean times the number of outputs.
    inner_loss: Literal["mean", "sum"] = "mean"
    # The optimizer whose direction α multiplies. Decay rates of the moments are 0.9 and 0.999.
    inner_optimizer: Literal["sgd", "momentum", "rmsprop", "adam", "adam_without_momentum"] = "sgd"
    adapts: Literal["all", "head", "body"] = "all"  # head: the last layer (ANIL); body: all but it (BOIL)
    adapts_normalisation: bool = True  # false: all tasks share the scales and offsets of the normalisation
    normalisation_per_step: bool = False  # each inner step has its own scales and offsets, and none adapts
    # Which loss the outer step takes: the query loss after the last inner step, the mean over all inner steps, or a
    # weighting that moves from the mean to the last step (MAML++).
    outer_loss: Literal["last", "all", "annealed"] = "last"


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return MAML's functions. It needs no earlier stage.

    With `learned_lr` {"params", "rates"} are trained, else the model's parameters alone. With `normalisation_per_step`
    their scales and offsets have the inner step as first axis.

    Returns:
      An algorithm whose learner is a `Learner` and whose loss metrics are the objective's, after adaptation. Its init
      raises ConfigError if the model has no head to tell from a body, or no scales and offsets.
    """
    predict = inner_loop.make_predict(model)
    descend = make_descend(config, model, problem.objective)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        return init_weights(config, model.init(key, trees.first(episodes.support.inputs)))

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        return descend(weights.trained, support, points=points)[0]

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        return descend(restart(config, weights.trained, learner.params), support)[0]

    if config.outer_loss == "last" or config.inner_steps == 0:
        loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    else:
        loss = make_multi_step_loss(config, descend, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict, update, watch=adapt)


def init_weights(config: Config, params: base.PyTree) -> base.Weights:
    """Return what is trained, from the parameters of a new model."""
    refuse_missing_layers(config, params)
    steps = max(config.inner_steps, 1)
    stepwise, shared = trees.partition(params, choose_stepwise(config, params))
    params = trees.merge(jax.tree.map(lambda leaf: jnp.stack([leaf] * steps), stepwise), shared)
    if config.learned_lr is None:
        return base.Weights(params)
    adapting, _ = trees.partition(params, choose_adapting(config, params))
    return base.Weights({"params": params, "rates": init_rates(config, adapting, steps)})


def init_rates(config: Config, adapting: base.PyTree, steps: int) -> base.PyTree:
    """Return `inner_lr`, as often as there are rates."""
    if config.learned_lr == "global":
        return jnp.full((), config.inner_lr, jax.tree.leaves(adapting)[0].dtype)
    get_shape = {"layer": lambda leaf: (), "parameter": jnp.shape, "layer_and_step": lambda leaf: (steps,)}
    return jax.tree.map(
        lambda leaf: jnp.full(get_shape[str(config.learned_lr)](leaf), config.inner_lr, leaf.dtype), adapting
    )


def make_descend(config: Config, model: base.Model, objective: base.Objective) -> Callable:
    """Make (trained, support, observe) -> the learner after all steps, and what `observe` gave after each step.

    `observe` takes the learner after one step; what it gives has leaves [step, ...]. With `points` what they note
    takes the place of the learner, and nothing is given for each step.
    """
    optimizer = inner_loop.OPTIMIZERS[config.inner_optimizer]()
    support_loss = make_support_loss(config, model, objective)
    has_rates_per_step = config.learned_lr == "layer_and_step"

    def descend(
        trained, support: base.Examples, observe=lambda learner: (), points: base.Points | None = None
    ):
        params, rates = split_trained(config, trained)
        stepwise, shared = trees.partition(params, choose_stepwise(config, params))
        adapting, fixed = trees.partition(shared, choose_adapting(config, params))
        rows = inner_loop.select_rows(
            {"rates": rates if has_rates_per_step else None, "stepwise": stepwise},
            inner_loop.count_steps(config, points),
        )

        def join(adapting, stepwise):
            return trees.merge(trees.merge(adapting, fixed), stepwise)

        def make_learner(state) -> Learner:
            (adapting, _), stepwise = state
            return Learner(join(adapting, stepwise), support.inputs)

        def step(state, row):
            gradient = jax.grad(lambda adapting: support_loss(join(adapting, row["stepwise"]), support))
            descent, _ = state
            step_rates = row["rates"] if has_rates_per_step else rates
            descent = inner_loop.take_step(
                config, descent, gradient(descent[0]), step_rates, optimizer, config.order == "first"
            )
            state = descent, row["stepwise"]
            return state, observe(make_learner(state))

        start = (adapting, optimizer.init(adapting)), trees.first(stepwise)
        if points is not None:
            return inner_loop.watch(points, step, start, make_learner, rows), ()
        state, notes = inner_loop.repeat(config, step, start, rows, config.rematerialise)
        return make_learner(state), notes

    return descend


def make_support_loss(config: Config, model: base.Model, objective: base.Objective) -> Callable:
    """Make (params, support) -> scalar: the mean loss of the support, times the outputs with `inner_loss: sum`."""

    def support_loss(params, support: base.Examples):
        outputs = model.apply(params, support.inputs, reference=support.inputs)
        scale = outputs.shape[-1] if config.inner_loss == "sum" else 1
        return scale * objective.loss(outputs, support.targets)

    return support_loss


def make_multi_step_loss(
    config: Config, descend: Callable, predict: Callable, objective: base.Objective
) -> Callable:
    """Make `Algorithm.loss`: the weighted mean of the query losses after each inner step."""

    def loss(weights: base.Weights, episode: base.Episode, key, progress):
        query = episode.query
        learner, losses = descend(
            weights.trained,
            episode.support,
            lambda learner: objective.loss(predict(learner, query.inputs), query.targets),
        )
        _, metrics = outer_loss.judge(objective, predict(learner, query.inputs), query)
        shares = weigh_steps(config.inner_steps, progress if config.outer_loss == "annealed" else 0.0)
        return jnp.sum(shares * losses), metrics

    return loss


def weigh_steps(steps: int, progress):
    """Return the weight of the loss after each inner step, [step]: at first equal, after a tenth 1 for the last step.

    As in the authors' code of MAML++ no weight falls below 0.03 of the equal weight until then.

    Args:
      progress: the share of the outer steps that are done.
    """
    early = jnp.where(progress < ANNEALING, jnp.maximum(1 - progress / ANNEALING, LEAST_SHARE), 0.0) / steps
    return jnp.full(steps, early).at[-1].set(1 - (steps - 1) * early)


def split_trained(config: Config, trained) -> tuple[base.PyTree, base.PyTree]:
    """Return (parameters, rates) of what is trained."""
    return (trained, config.inner_lr) if config.learned_lr is None else (trained["params"], trained["rates"])


def restart(config: Config, trained, params: base.PyTree) -> base.PyTree:
    """Return what is trained, with the parameters of a learner as the start.

    Scales and offsets that each inner step has of its own stay those that were trained.
    """
    start, _ = split_trained(config, trained)
    stepwise, _ = trees.partition(start, choose_stepwise(config, start))
    params = trees.merge(stepwise, params)
    return params if config.learned_lr is None else trained | {"params": params}


def choose_adapting(config: Config, params: base.PyTree) -> Callable[[tuple[str, ...]], bool]:
    """Make path -> whether the inner loop changes the parameters there."""
    fixes_normalisation = config.normalisation_per_step or not config.adapts_normalisation
    fixed = parameter_kinds.find_normalisation(params) if fixes_normalisation else frozenset()

    def adapts(path: tuple[str, ...]) -> bool:
        if path in fixed:
            return False
        return config.adapts == "all" or parameter_kinds.is_head(path) == (config.adapts == "head")

    return adapts


def choose_stepwise(config: Config, params: base.PyTree) -> Callable[[tuple[str, ...]], bool]:
    """Make path -> whether each inner step has the parameters there of its own."""
    stepwise = parameter_kinds.find_normalisation(params) if config.normalisation_per_step else frozenset()
    return lambda path: path in stepwise


def refuse_missing_layers(config: Config, params: base.PyTree) -> None:
    """Raise ConfigError if the model lacks what the config names."""
    paths = [trees.path_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    if config.adapts != "all" and len({parameter_kinds.is_head(path) for path in paths}) == 1:
        raise errors.ConfigError(
            f"the model has no last layer to tell from its body, and adapts is {config.adapts}",
            "algorithm.adapts",
            "set adapts: all, or take a model with a layer `head` and others",
        )
    if config.normalisation_per_step:
        parameter_kinds.refuse_without_normalisation(
            params, "normalisation_per_step", "normalisation_per_step: false"
        )
    if not config.adapts_normalisation:
        parameter_kinds.refuse_without_normalisation(
            params, "adapts_normalisation", "adapts_normalisation: true"
        )
