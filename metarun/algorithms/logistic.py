"""Regularised logistic regression on frozen features, solved to convergence for each task.

On the features f_i of the support, from the body of the stage `pretrained`,

    W, b = argmin  Σ_i −log softmax(W·f_i + b)[y_i] + strength/2 · ‖W‖²,

by L-BFGS until no entry of the gradient is above `tolerance`. `strength` is 1/C of scikit-learn. Tian et al. 2020,
arXiv 2003.11539, propose it as a baseline of meta-learning; they too divide features by their norm (`unit_length`).

The stage has nothing to train, and needs no `training`.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metarun import base, trees
from metarun.blocks import earlier_stages, metric_space, networks, outer_loss, pretrained_body, target_kinds
from metarun.ranges import Above, AtLeast

EXAMPLE = base.Example(earlier=("pretrain",))


@dataclass(frozen=True)
class Config:
    """The features and the problem."""

    pretrained: str = "pretrain"  # name of the earlier stage whose features are used
    strength: Annotated[float, Above(0)] = 1.0  # strength of the regularisation; 1/C of scikit-learn
    unit_length: bool = True  # divide the features of each example by their norm
    tolerance: Annotated[float, Above(0)] = 1e-4  # largest entry of the gradient at the solution
    limit: Annotated[int, AtLeast(1)] = 200  # most steps of L-BFGS

    @property
    def trains_nothing(self) -> bool:
        """Whether a stage has nothing to train, and so needs no `training`."""
        return True


class Learner(NamedTuple):
    """The frozen body, and the classifier of one task."""

    body: base.PyTree
    classifier: base.PyTree  # {"kernel" [feature, way], "bias" [way]}
    reference: base.PyTree  # the support's inputs


def build(config: Config, model: base.Model, problem: base.Problem, earlier=None) -> base.Algorithm:
    """Build the four functions on the earlier stage `pretrained`.

    Returns:
      An algorithm that trains nothing: its weights are the frozen body of that stage. Its init raises ConfigError if
      that stage has another model.

    Raises:
      ValueError: there is no such stage, or the targets are no classes.
    """
    ways = target_kinds.require_ways(problem, "logistic")
    earlier_stages.find("pretrained", config.pretrained, earlier)

    def init(key, episodes: base.Episode, earlier) -> base.Weights:
        inputs, weights = trees.first(episodes.support.inputs), earlier[config.pretrained]
        return base.Weights((), pretrained_body.extract_body(config.pretrained, weights, model, inputs))

    def compute_features(body, inputs, reference):
        features = model.embed(body, inputs, reference=reference)
        return metric_space.unit(features) if config.unit_length else features

    def adapt(weights: base.Weights, support: base.Examples) -> Learner:
        features = compute_features(weights.frozen, support.inputs, support.inputs)
        return Learner(weights.frozen, fit(config, features, support.targets, ways), support.inputs)

    def predict(learner: Learner, inputs):
        return networks.dense(learner.classifier, compute_features(learner.body, inputs, learner.reference))

    loss = outer_loss.make_query_loss(adapt, predict, problem.objective)
    return base.Algorithm(init, loss, adapt, predict)


def fit(config: Config, features, labels, ways: int):
    """Return the classifier {"kernel", "bias"} at the minimum of the problem in the module's docstring.

    Args:
      features: [example, feature]
      labels: int [example]
    """

    def objective(classifier):
        log_probabilities = jax.nn.log_softmax(networks.dense(classifier, features))
        misfit = -jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1).sum()
        return misfit + config.strength / 2 * jnp.square(classifier[base.KERNEL]).sum()

    solver = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(objective)

    def is_unfinished(carry):
        _, _, steps, steepest = carry
        return (steps < config.limit) & (steepest > config.tolerance)

    def advance(carry):
        classifier, memory, steps, _ = carry
        value, gradient = value_and_gradient(classifier, state=memory)
        updates, memory = solver.update(
            gradient, memory, classifier, value=value, grad=gradient, value_fn=objective
        )
        slope = optax.tree.get(memory, "grad")  # at the new point, from the line search
        steepest = jnp.max(jnp.array([jnp.abs(leaf).max() for leaf in jax.tree.leaves(slope)]))
        return optax.apply_updates(classifier, updates), memory, steps + 1, steepest

    kernel = jnp.zeros((features.shape[-1], ways), features.dtype)
    start = {base.KERNEL: kernel, base.BIAS: jnp.zeros(ways, features.dtype)}
    infinity = jnp.full((), jnp.inf, features.dtype)
    return jax.lax.while_loop(is_unfinished, advance, (start, solver.init(start), 0, infinity))[0]
