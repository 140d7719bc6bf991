"""How well a learner's weights agree with a task's hyperplane: the cosine of both directions, on the frozen episodes.

    python scripts/weight_directions.py RUN [RUN ...] [--inner-steps N]

For runs of the task family `linear`, kind hyperplane, whose model is `linear`: with the weights W [feature, 2] of a
learner the line between the classes is normal to W₁ − W₀, and the best direction is the hyperplane's own normal. For
comparison, without training: the direction of the difference of the support's class means, and ridge regression.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import metarun
from metarun import base, building, config, evaluation
from metarun.runs import directory

RIDGE = 1.0  # times the identity, beside the inputs' second moment: the points are standard normal


def episodes_of(run: Path) -> base.Episode:
    """The frozen episodes of a run's evaluation, leaves [episode, ...]."""
    run_config = config.load(run / directory.CONFIG)
    judged = run_config.evaluation
    family = building.task_family(building.judged_selection(run_config.task, judged))
    keys = evaluation.episode_keys(judged.seed, judged.split, judged.episodes)
    return jax.jit(jax.vmap(lambda key: family.sample(family.data[judged.split], key)))(keys)


def written(run: Path, inner_steps: int | None) -> Callable:
    """support -> the direction of the learner's weights, [feature]."""
    loaded = metarun.load(run, inner_steps=inner_steps)
    adapt = loaded.programs(2).adapt

    def direction(support: base.Examples):
        kernel = adapt(loaded.weights, support).params["head"]["kernel"]
        return kernel[:, 1] - kernel[:, 0]

    return direction


def class_means(support: base.Examples):
    """The difference of the means of both classes, [feature]."""
    return (2 * support.targets - 1) @ support.inputs


def ridge(support: base.Examples):
    """The weights of ridge regression to −1 and 1, [feature]."""
    moment = support.inputs.T @ support.inputs + RIDGE * jnp.eye(support.inputs.shape[1])
    return jnp.linalg.solve(moment, class_means(support))


def cosines(direction: Callable, episodes: base.Episode) -> np.ndarray:
    """Of a direction with the hyperplane's normal, [episode]."""
    found = jax.jit(jax.vmap(direction))(episodes.support)
    normals = episodes.facts["normal"]
    return np.asarray((found * normals).sum(axis=1) / jnp.linalg.norm(found, axis=1))


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
    episodes = episodes_of(options.runs[0])
    directions = {str(run): written(run, options.inner_steps) for run in options.runs}
    for name, direction in (directions | {"class means": class_means, "ridge regression": ridge}).items():
        found = evaluation.interval(cosines(direction, episodes))
        print(f"{name}: cosine {found.mean:.4f} ± {found.ci95:.4f}")


if __name__ == "__main__":
    main()
