"""Measure how well a learner's weights agree with a task's hyperplane: the cosine of their directions.

    python experiments/weight_directions.py RUN [RUN ...] [--inner-steps N]

For runs of the task family `linear`, kind hyperplane, whose model is `affine`, on the frozen episodes: with the weights
W [feature, 2] of a learner the line between the classes is normal to W₁ − W₀, and the best direction is the
hyperplane's own normal. Two directions without training stand beside it: the difference of the support's class means,
and ridge regression.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import metarun
from metarun import assembly, base, hardware
from metarun.evaluation import episodes
from metarun.evaluation.statistics import estimate_mean
from metarun.finished.finished_run import find_run

RIDGE = 1.0  # times the identity, beside the inputs' second moment: the points are standard normal


def sample_episodes(path: Path) -> base.Episode:
    """Return the frozen episodes of a run's evaluation, leaves [episode, ...]."""
    settings = find_run(path).config
    tasks = assembly.build_tasks(settings, hardware.select(settings.accelerator)[0])
    frozen = episodes.freeze(tasks, settings.evaluation)
    sampled: base.Episode = jax.jit(jax.vmap(lambda key: frozen.family.sample(frozen.data, key)))(frozen.keys)
    return sampled


def make_direction(path: Path, inner_steps: int | None) -> Callable:
    """Make support -> the direction of the learner's weights, [feature]."""
    run = metarun.load(path, inner_steps=inner_steps)
    adapt = run.programs(2).adapt

    def read_direction(support: base.Examples):
        kernel = adapt(run.weights, support).params[base.HEAD][base.KERNEL]
        return kernel[:, 1] - kernel[:, 0]

    return read_direction


def subtract_class_means(support: base.Examples):
    """Return the difference of the means of both classes, [feature], but for its length."""
    return (2 * support.targets - 1) @ support.inputs


def solve_ridge(support: base.Examples):
    """Return the weights of ridge regression to −1 and 1, [feature]."""
    moment = support.inputs.T @ support.inputs + RIDGE * jnp.eye(support.inputs.shape[1])
    return jnp.linalg.solve(moment, subtract_class_means(support))


def measure_cosines(direction: Callable, sampled: base.Episode) -> np.ndarray:
    """Return the cosine of a direction with the hyperplane's normal, [episode]."""
    directions = jax.jit(jax.vmap(direction))(sampled.support)
    normals = sampled.facts["normal"]
    return np.asarray((directions * normals).sum(axis=1) / jnp.linalg.norm(directions, axis=1))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument(
        "--inner-steps", type=int, help="of the inner loop; as the run is evaluated if left out"
    )
    options = parser.parse_args()
    sampled = sample_episodes(options.runs[0])
    directions = {str(run): make_direction(run, options.inner_steps) for run in options.runs}
    directions |= {"class means": subtract_class_means, "ridge regression": solve_ridge}
    for name, direction in directions.items():
        cosine = estimate_mean(measure_cosines(direction, sampled))
        print(f"{name}: cosine {cosine.mean:.4f} ± {cosine.ci95:.4f}")


if __name__ == "__main__":
    main()
