"""Model-agnostic meta-learning: learn a start from which a few gradient steps fit a task.

Finn, Abbeel, Levine 2017, arXiv 1703.03400. The inner loop descends the support loss L_S from the start θ,

    θ_0 = θ,    θ_{k+1} = θ_k − α_k ∘ ∇L_S(θ_k),

and the outer objective is the query loss L_Q(θ_K). `order: second` differentiates through every inner step;
`order: first` (FOMAML) takes ∂θ_K/∂θ for the identity, which drops the Hessian term.

Published methods that are this formula with other settings, each with a config of its name:

- ANIL (Raghu et al. 2019, 1909.09157): `adapts: head`; BOIL (Oh et al. 2020, 2008.08882): `adapts: body`.
- Meta-SGD (Li et al. 2017, 1707.09835): `learned_lr: parameter`. The start of every α is `inner_lr`, where the paper
  draws one number for all from [0.005, 0.1].
- MAML++ (Antoniou et al. 2018, 1810.09502): `learned_lr: layer_and_step`, `outer_loss: annealed`,
  `normalisation_per_step: true` and a cosine schedule of the outer optimizer. As in the authors' code a rate belongs
  to one array (a kernel, a bias), scales and offsets of the normalisation do not adapt, and the multi-step loss moves
  from equal weights to the last step over the first tenth of the training. Different here: statistics are those of the
  batch or of the support, so that there are none to keep for each step; there is no annealing from first order to
  second.

With `inner_loss: mean` L_S is the mean over the support. The MAML authors' code sums the means of the classes, which is
`inner_loss: sum`: the mean times the number of outputs. Its 0.4 in 5 ways, and its 0.1 in 20, are 2.0 for the mean.

`inner_clip_norm` is ours: where α is above what the curvature of a task allows, every step after the ones that were
trained is further off than the last, up to infinity; a bounded gradient keeps the learner near.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, errors, trees
from metarun.algorithms import _inner
from metarun.algorithms._inner import Learner
from metarun.ranges import Above, AtLeast

ANNEALING = 0.1  # of the outer steps, in which the multi-step loss moves to the last inner step
LEAST_SHARE = 0.03  # of what an inner step counts at first, while there is a multi-step loss


@dataclass(frozen=True)
class Config:
    """The inner loop, and what of it is learned."""

    inner_steps: Annotated[int, AtLeast(0)] = 1  # gradient steps on the support
    inner_lr: Annotated[float, Above(0)] = 0.01  # α, or what it starts from where it is learned
    learned_lr: Literal["global", "layer", "parameter", "layer_and_step"] | None = None  # α that are learned:
    # one, one for each array, one for each number of it, one for each array and
    # step; null: α is fixed. Steps beyond those of the training take the last step's
    inner_loss: Literal["mean", "sum"] = "mean"  # over the support; sum: the mean times the number of outputs
    inner_optimizer: Literal["sgd", "momentum", "rmsprop", "adam", "adam_without_momentum"] = (
        "sgd"  # whose direction α multiplies; moments 0.9, 0.999
    )
    inner_clip_norm: Annotated[float, Above(0)] | None = None  # largest norm of an inner gradient; null: any
    adapts: Literal["all", "head", "body"] = "all"  # head: the last layer (ANIL); body: all but it (BOIL)
    normalisation_per_step: bool = False  # each inner step has its own scales and offsets, and none adapts
    order: Literal["second", "first"] = "second"  # of the outer gradient; first is FOMAML
    outer_loss: Literal["last", "all", "annealed"] = (
        "last"  # of the query after the last inner step, the mean over all, or from that to the last: MAML++
    )
    loop: Literal["scan", "unroll"] = "unroll"  # of the inner steps: scan compiles faster, unroll runs faster
    rematerialise: bool = False  # recompute each inner step in the backward pass: less memory, more time


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    With `learned_lr` what is trained is {"params", "rates"}, else the model's parameters. With
    `normalisation_per_step` their scales and offsets have the inner step as first axis.

    Returns:
      An algorithm whose learner is a `Learner` and whose loss metrics are the objective's, after adaptation. Its init
      raises ConfigError where the model has no head to tell from a body, or no scales and offsets.
    """
    optimizer = _inner.OPTIMIZERS[config.inner_optimizer]()
    predict = _inner.predictor(model)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        params = model.init(key, trees.first(episodes.support.inputs))
        refuse_without_parts(config, params)
        steps = max(config.inner_steps, 1)
        if config.normalisation_per_step:
            norms, others = _inner.partition(params, is_normalisation)
            params = _inner.merge(jax.tree.map(lambda leaf: jnp.stack([leaf] * steps), norms), others)
        if config.learned_lr is None:
            return base.Weights(params)
        fast, _ = _inner.partition(params, lambda path: adapts(config, path))
        return base.Weights({"params": params, "rates": initial_rates(config, fast, steps)})

    def support_loss(params, support: base.Examples):
        outputs = model.apply(params, support.inputs, reference=support.inputs)
        scale = outputs.shape[-1] if config.inner_loss == "sum" else 1
        return scale * objective.loss(outputs, support.targets)

    def adapted(weights: base.Weights, support: base.Examples, observe=lambda learner: ()):
        """The learner after all steps, and what `observe` gave after each, leaves [step, ...]."""
        params = weights.trained if config.learned_lr is None else weights.trained["params"]
        rates = config.inner_lr if config.learned_lr is None else weights.trained["rates"]
        norms, params = _inner.partition(
            params, lambda path: config.normalisation_per_step and is_normalisation(path)
        )
        fast, slow = _inner.partition(params, lambda path: adapts(config, path))
        stepwise = config.learned_lr == "layer_and_step"
        rows = rows_of_steps({"rates": rates if stepwise else None, "norms": norms}, config.inner_steps)

        def whole(fast, norms):
            return _inner.merge(_inner.merge(fast, slow), norms)

        def step(state, row):
            fast, memory = state
            slope = jax.grad(lambda fast: support_loss(whole(fast, row["norms"]), support))(fast)
            slope = _inner.bounded(slope, config.inner_clip_norm, config.order)
            direction, memory = optimizer.update(slope, memory, fast)
            fast = descend(fast, direction, row["rates"] if stepwise else rates)
            return (fast, memory), observe(Learner(whole(fast, row["norms"]), support.inputs))

        start = fast, optimizer.init(fast)
        (fast, _), notes = _inner.repeat(
            step, start, rows, config.inner_steps, config.loop, config.rematerialise
        )
        last = jax.tree.map(lambda leaf: leaf[min(max(config.inner_steps, 1), leaf.shape[0]) - 1], norms)
        return Learner(whole(fast, last), support.inputs), notes

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        return adapted(weights, support)[0]

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        """The scales and offsets of the inner steps stay those that were trained, where every step has its own."""
        plain = config.learned_lr is None
        trained = weights.trained if plain else weights.trained["params"]
        norms, _ = _inner.partition(
            trained, lambda path: config.normalisation_per_step and is_normalisation(path)
        )
        params = jax.tree.map(
            lambda stepwise, adapted: adapted if stepwise is None else stepwise,
            norms,
            learner.params,
            is_leaf=lambda leaf: leaf is None,
        )
        return adapt(base.Weights(params if plain else weights.trained | {"params": params}), support)

    def loss(weights: base.Weights, episode: base.Episode, key, done=1.0):
        query = episode.query

        def of_query(learner: Learner):
            return objective.loss(predict(learner, query.inputs), query.targets)

        if config.outer_loss == "last" or config.inner_steps == 0:
            learner = adapt(weights, episode.support)
            return _inner.query_loss(objective, predict(learner, query.inputs), query)
        learner, losses = adapted(weights, episode.support, of_query)
        _, metrics = _inner.query_loss(objective, predict(learner, query.inputs), query)
        shares = step_shares(config.inner_steps, done if config.outer_loss == "annealed" else 0.0)
        return jnp.sum(shares * losses), metrics

    return base.Algorithm(init, loss, adapt, predict, config.outer_loss == "annealed", update)


def step_shares(steps: int, done):
    """How much the loss after each inner step counts, [step]: at first all the same, from a tenth on the last alone.

    As in the authors' code of MAML++ no step counts less than 0.03 of the same share until then.

    Args:
      done: the share of the outer steps that are done.
    """
    early = jnp.where(done < ANNEALING, jnp.maximum(1 - done / ANNEALING, LEAST_SHARE), 0.0) / steps
    return jnp.full(steps, early).at[-1].set(1 - (steps - 1) * early)


def adapts(config: Config, path: tuple[str, ...]) -> bool:
    """Whether the inner loop changes the parameters at a path."""
    if config.normalisation_per_step and is_normalisation(path):
        return False
    return config.adapts == "all" or is_head(path) == (config.adapts == "head")


def is_head(path: tuple[str, ...]) -> bool:
    """Whether parameters are of the model's last layer: every model calls that one `head`."""
    return path[:1] == ("head",)


def is_normalisation(path: tuple[str, ...]) -> bool:
    """Whether parameters are of a normalisation: only those are called `scale` and `offset`."""
    return path[-1:] in (("scale",), ("offset",))


def refuse_without_parts(config: Config, params) -> None:
    """Raise ConfigError where what the config names is not in the model."""
    paths = [_inner.names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    if config.adapts != "all" and len({is_head(path) for path in paths}) == 1:
        raise errors.ConfigError(
            f"the model has no last layer to tell from its body, and adapts is {config.adapts}",
            "algorithm.adapts",
            "set adapts: all, or take a model with a layer `head` and others",
        )
    if config.normalisation_per_step and not any(map(is_normalisation, paths)):
        raise errors.ConfigError(
            "the model has no normalisation with scales and offsets",
            "algorithm.normalisation_per_step",
            "set normalisation_per_step: false, or model.normalisation: batch",
        )


def initial_rates(config: Config, fast, steps: int):
    """`inner_lr`, as often as there are rates."""
    if config.learned_lr == "global":
        return jnp.full((), config.inner_lr, jax.tree.leaves(fast)[0].dtype)
    shape = {"layer": lambda leaf: (), "parameter": jnp.shape, "layer_and_step": lambda leaf: (steps,)}
    return jax.tree.map(
        lambda leaf: jnp.full(shape[str(config.learned_lr)](leaf), config.inner_lr, leaf.dtype), fast
    )


def rows_of_steps(tree, steps: int):
    """Leaves [trained step, ...] as [step, ...]: steps beyond those of the training have the last one's values."""
    return jax.tree.map(lambda leaf: leaf[np.minimum(np.arange(steps), leaf.shape[0] - 1)], tree)


def descend(params, direction, rates):
    """params − rates ∘ direction; `rates` is one number, or a tree of numbers or of arrays like the parameters."""
    if jax.tree.structure(rates) != jax.tree.structure(params):
        return jax.tree.map(lambda leaf, slope: leaf - rates * slope, params, direction)
    return jax.tree.map(lambda leaf, rate, slope: leaf - rate * slope, params, rates, direction)
