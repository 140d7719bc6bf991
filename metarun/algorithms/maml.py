"""Model-agnostic meta-learning: learn a start from which a few gradient steps fit a task.

Finn, Abbeel, Levine 2017, arXiv 1703.03400. The inner loop descends the support loss L_S from the start θ,

    θ_0 = θ,    θ_{k+1} = θ_k − α ∇L_S(θ_k),

and the outer objective is the query loss L_Q(θ_K). `order: second` differentiates through every inner step;
`order: first` (FOMAML) takes ∂θ_K/∂θ for the identity, which drops the Hessian term.

L_S is the mean over the support. The authors' code sums the means of the classes instead, so that its inner
learning rate times the number of ways is ours: its 0.4 in 5 ways, and its 0.1 in 20 ways, are 2.0 here.

`inner_clip_norm` is ours: where α is above what the curvature of a task allows, every step after the ones that were
trained is further off than the last, up to infinity; a bounded gradient keeps the learner near.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax

from metarun import base, trees
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config:
    """The inner loop."""

    inner_steps: Annotated[int, AtLeast(0)] = 1  # gradient steps on the support
    inner_lr: Annotated[float, Above(0)] = 0.01  # α, for a loss that is the mean over the support
    inner_clip_norm: Annotated[float, Above(0)] | None = None  # largest norm of an inner gradient; null: any
    order: Literal["second", "first"] = "second"  # of the outer gradient; first is FOMAML
    loop: Literal["scan", "unroll"] = "unroll"  # of the inner steps: scan compiles faster, unroll runs faster
    rematerialise: bool = False  # recompute each inner step in the backward pass: less memory, more time


class Learner(NamedTuple):
    """The network adapted to one task, and the inputs that normalise its queries."""

    params: base.PyTree
    reference: base.PyTree


def build(config: Config, model: base.Model, objective: base.Objective, earlier=None) -> base.Algorithm:
    """The four functions. Needs no earlier stage.

    Returns:
      An algorithm whose learner is a `Learner` and whose loss metrics are the objective's, after adaptation.
    """

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        return base.Weights(model.init(key, trees.first(episodes.support.inputs)))

    def support_loss(params, support: base.Examples):
        return objective.loss(model.apply(params, support.inputs, reference=support.inputs), support.targets)

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        def step(params):
            gradient = jax.grad(support_loss)(params, support)
            if config.inner_clip_norm is not None:
                gradient = trees.clip_norm(gradient, config.inner_clip_norm)
            if config.order == "first":
                gradient = jax.lax.stop_gradient(gradient)
            return trees.descend(params, gradient, config.inner_lr)

        step = jax.checkpoint(step) if config.rematerialise else step
        params = weights.trained
        if config.loop == "scan":
            params, _ = jax.lax.scan(
                lambda params, _: (step(params), None), params, length=config.inner_steps
            )
        else:
            for _ in range(
                config.inner_steps
            ):  # under vmap the first step still has the tasks' common weights
                params = step(params)
        return Learner(params, support.inputs)

    def predict(learner: Learner, inputs):
        return model.apply(learner.params, inputs, reference=learner.reference)

    def loss(weights: base.Weights, episode: base.Episode, key):
        learner = adapt(weights, episode.support)
        outputs = predict(learner, episode.query.inputs)
        metrics = objective.training_metrics(jax.lax.stop_gradient(outputs), episode.query.targets)
        return objective.loss(outputs, episode.query.targets), metrics

    return base.Algorithm(init, loss, adapt, predict)
