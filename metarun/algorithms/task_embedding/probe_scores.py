"""The collaborative source of task vectors: how well the networks of some training tasks answer a new task."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from metarun import base
from metarun.algorithms.task_embedding import collaborative_filter, solver_network

if TYPE_CHECKING:
    from metarun.algorithms.task_embedding import Config

PROBES_AT_ONCE = 8  # for each of the tasks in parallel, whose images all of them see
LEAST_LOSS = 1e-6  # nats or squared units, added under the logarithm; far below any loss that noise leaves


def make_source(config: "Config", model: base.Model, problem: base.Problem) -> tuple[Callable, Callable]:
    """Make (compute_vector, fit), as in `fitted_source`.

    The fit computes the scores of every task by every probe, and hides all but `observed` of each task.
    """
    _, loss = solver_network.make_loss(config, model, problem)
    descend = solver_network.make_descent(config, loss)

    def compute_scores(probes, support: base.Examples):
        losses = jax.lax.map(lambda probe: loss(probe, support), probes, batch_size=PROBES_AT_ONCE)
        return jnp.log(losses + LEAST_LOSS)

    def compute_vector(frozen, support: base.Examples):
        observed = jax.tree.map(lambda leaf: leaf[: config.observed], frozen["probes"])
        scores = compute_scores(observed, support)
        return collaborative_filter.place(frozen["factors"], scores, config.ridge)

    def fit(key, frozen, supports: base.Examples):
        probe_supports = jax.tree.map(lambda leaf: leaf[: config.probes], supports)
        probes = solver_network.map_tasks(lambda support: descend(frozen["network"], support), probe_supports)
        scores = solver_network.map_tasks(
            lambda support: compute_scores(probes, support), supports, networks=PROBES_AT_ONCE
        )
        mask_key, start_key = jax.random.split(key)
        mask = collaborative_filter.draw_observed(mask_key, len(scores), config.probes, config.observed)
        factors = collaborative_filter.factorise(start_key, scores, mask, config.dimensions, config.ridge)
        return {"probes": probes, "factors": factors}

    return compute_vector, fit
