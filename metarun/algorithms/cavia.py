"""CAVIA: only a small vector of context parameters adapts to a task; all tasks share the network.

Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson 2019, arXiv 1810.03642. The network f has the parameters θ and, beside its
inputs, a condition c. The inner loop starts from zeros and descends the support loss in c alone,

    c_0 = 0,    c_{k+1} = c_k − α ∇_c L_S(θ, c_k),

and the outer objective is the query loss L_Q(θ, c_K) in θ. `order: first` takes ∂c_K/∂θ for zero.

The authors' code clamps the gradient of each task to ±10; here `training.clip_value` clamps the mean over the tasks.
Table 1 of the paper compares with MAML on additional inputs that adapt with the weights, the option `extra_inputs` of
`mlp`.

The model decides what a condition does: `mlp` has it beside the inputs, as the paper's regression does; `conv4`
modulates every block by it (FiLM), where the paper modulates one.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from metarun import base, trees
from metarun.blocks import inner_loop, modulation, outer_loss
from metarun.blocks.inner_loop import Learner
from metarun.options import InnerLoop
from metarun.ranges import Above, AtLeast


@dataclass(frozen=True)
class Config(InnerLoop):
    """The context parameters and their inner loop."""

    inner_lr: Annotated[float, Above(0)] = 1.0  # α, for a loss that is the mean over the support
    context: Annotated[int, AtLeast(1)] = 5  # context parameters


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Return CAVIA's functions. It needs no earlier stage.

    Returns:
      An algorithm whose learner is a `Learner` with c as its condition, and whose loss metrics are the objective's,
      after adaptation. Its init raises ConfigError if the model takes no condition.
    """
    support_loss = inner_loop.make_support_loss(model, problem.objective)
    predict = inner_loop.make_predict(model)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs = trees.first(episodes.support.inputs)
        return base.Weights(modulation.init_params(model, key, inputs, jnp.zeros(config.context)))

    def descend(weights: base.Weights, context, support: base.Examples, points: base.Points | None):
        return inner_loop.descend(
            config,
            jax.grad(lambda context: support_loss(weights.trained, support, context)),
            context,
            finish=lambda context: Learner(weights.trained, support.inputs, context),
            points=points,
        )

    def adapt(weights: base.Weights, support: base.Examples, points: base.Points | None = None):
        context = jnp.zeros(config.context, jax.tree.leaves(weights.trained)[0].dtype)
        return descend(weights, context, support, points)

    def update(weights: base.Weights, learner: Learner, support: base.Examples) -> Learner:
        return descend(weights, learner.condition, support, None)

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict, update, watch=adapt)
