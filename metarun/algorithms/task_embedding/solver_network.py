"""The network of an earlier stage, as a source of task vectors reads it: its loss on a support, and descent on that."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from metarun import base, errors
from metarun.base import PyTree
from metarun.blocks import inner_loop, metric_space, pretrained_body
from metarun.options import InnerLoop

if TYPE_CHECKING:
    from metarun.algorithms.task_embedding import Config

AT_ONCE = 32  # networks in parallel: hundreds of them, or their derivatives, need much memory at once


def extract_params(
    stage: str, weights: base.Weights, model: base.Model, inputs: PyTree, with_head: bool
) -> PyTree:
    """Return the parameters that an earlier stage has learned: the body, and `with_head` the last layer too.

    Raises:
      ConfigError: the stage has another model, or no last layer, or one of another size.
    """
    body = pretrained_body.extract_body(stage, weights, model, inputs)
    if not with_head:
        return body
    trained = weights.trained if base.HEAD in weights.trained else weights.trained.get("params", {})
    params = body | {base.HEAD: trained.get(base.HEAD)}
    start = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs))
    if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, start):
        raise errors.ConfigError(
            f"the stage {stage} has no last layer of the model's size",
            "algorithm.head",
            "set head: means in a classification, or name a stage that trains one",
        )
    return params


def uses_means(config: "Config", spec: base.Spec) -> bool:
    """Return whether the outputs under L_S are cosines with class means."""
    return config.head == "means" or (config.head is None and spec.targets == "classes")


def make_outputs(model: base.Model, ways: int | None) -> Callable:
    """Make (params, support) -> outputs for the support's own inputs.

    With `ways` these are the cosines with the class means of the features, times ten, and not the last layer's: they
    do not depend on which class has which label. The means are constants in every derivative.
    """

    def compute_outputs(params, support: base.Examples):
        inputs = support.inputs
        if ways is None:
            return model.apply(params, inputs, reference=inputs)
        features = model.embed(params, inputs, reference=inputs)
        means = metric_space.class_means(jax.lax.stop_gradient(features), support.targets, ways)
        return metric_space.COSINE_SCALE * metric_space.cosines(features, means)

    return compute_outputs


def make_loss(config: "Config", model: base.Model, problem: base.Problem) -> tuple[Callable, Callable]:
    """Make two functions of (params, support): the outputs, and their loss L_S."""
    means = uses_means(config, problem.spec)
    compute_outputs = make_outputs(model, problem.spec.output_size if means else None)

    def loss(params, support: base.Examples):
        return problem.objective.loss(compute_outputs(params, support), support.targets)

    return compute_outputs, loss


def make_descent(config: "Config", loss: Callable) -> Callable:
    """Make (params, support) -> the params after `adapted_steps` on `loss`: (params, support) -> scalar."""
    steps = InnerLoop(config.adapted_steps, config.adapted_lr, loop="scan", order="first")

    def descend(params, support: base.Examples):
        return inner_loop.descend(steps, lambda params: jax.grad(loss)(params, support), params)

    return descend


def map_tasks(function: Callable, supports: base.Examples, networks: int = 1) -> PyTree:
    """Return the function of every task, leaves [task, ...], computed for some tasks at a time.

    Args:
      networks: how many the function computes for one task; the more, the fewer tasks at a time.
    """
    return jax.lax.map(function, supports, batch_size=max(1, AT_ONCE // networks))
