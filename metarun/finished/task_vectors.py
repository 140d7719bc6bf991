"""Tasks as vectors: what a stage gives for many tasks, and what their sampler knows of them.

Everything here is on the frozen list of episodes of a split, as in evaluation.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from metarun import base, errors
from metarun.base import PyTree
from metarun.evaluation.episodes import FrozenEpisodes, group_episodes
from metarun.finished.opened_run import OpenedLearner, OpenedRun, freeze_episodes, take_first_learner

AT_ONCE = 32  # tasks that are embedded in parallel
CLASSES = ("character", "class")  # facts that say what a way shows, the first one that there is


class TaskVectors(NamedTuple):
    """Many tasks as vectors, with what their sampler knows of them."""

    vectors: Float[np.ndarray, "task embed"]
    clusters: Float[np.ndarray, "task cluster"]  # memberships; no columns if there are no clusters
    raw: Float[np.ndarray, "task feature"]  # the support itself as a vector: the baseline
    facts: dict[str, np.ndarray]  # [task]: one number for each task
    classes: Int[np.ndarray, "task way"] | None = None  # what is shown; None: the sampler names no classes


class EmbeddedRun(NamedTuple):
    """One stage of a run that embeds tasks."""

    path: Path
    stage: str
    step: int
    split: str
    tasks: TaskVectors
    names: dict[str, tuple[str, ...]]  # names of the values of a fact, if they have names


def embed(run: OpenedRun, count: int, place: int = 0) -> EmbeddedRun:
    """Embed the first `count` frozen tasks of a split with the first learner of a stage.

    Args:
      place: of another learner among `Stage.positions`.

    Raises:
      MetarunError: what is wrong with the run or with the choice, and what to do.
    """
    opened = take_first_learner(run, place)
    episodes = freeze_episodes(opened, count)
    refuse_without_embedding(opened, episodes)
    tasks, names = name_groups(embed_tasks(opened, episodes), episodes)
    return EmbeddedRun(opened.path, opened.stage, opened.step, episodes.split, tasks, names)


def refuse_without_embedding(opened: OpenedLearner, episodes: FrozenEpisodes) -> None:
    """Raise UsageError if the learner of a stage holds no vector of its task. Computes nothing."""

    def adapt(weights, data):
        return opened.algorithm.adapt(weights, episodes.family.sample(data, jax.random.key(0)).support)

    if not hasattr(jax.eval_shape(adapt, opened.weights, episodes.data), "embedding"):
        raise errors.UsageError(
            f"the stage {opened.stage} gives no vector of a task",
            f"stage {opened.stage}",
            "name a stage whose algorithm is task_embedding, with --stage",
        )


def embed_tasks(opened: OpenedLearner, episodes: FrozenEpisodes) -> TaskVectors:
    """Adapt to every task in one compiled program, and return the vectors."""

    def embed_task(weights, data, key):
        episode = episodes.family.sample(data, key)
        learner = opened.algorithm.adapt(weights, episode.support)
        cluster = getattr(learner, "cluster", None)
        return learner.embedding, cluster, flatten_support(episode.support, spec), episode.facts

    @jax.jit
    def embed_all(weights, data, keys):
        return jax.lax.map(lambda key: embed_task(weights, data, key), keys, batch_size=AT_ONCE)

    spec = episodes.family.problem.spec
    vectors, clusters, raw, facts = jax.device_get(embed_all(opened.weights, episodes.data, episodes.keys))
    if not np.isfinite(vectors).all():
        raise errors.DivergedError(
            "vectors of tasks have numbers that are not finite",
            "the learner's embedding",
            "take fewer or smaller inner steps in the stage that embeds",
        )
    memberships = np.zeros((len(vectors), 0), np.float32) if clusters is None else clusters
    return TaskVectors(vectors, memberships, raw, select_scalar_facts(facts), select_classes(facts))


def flatten_support(support: base.Examples, spec: base.Spec):
    """Return the support without any network: for classes and sentences the mean input, for numbers all examples.

    Examples with numbers are sorted by the first number of their inputs, because their order means nothing. Sentences
    are averaged as the numbers of their tokens, for want of anything better.
    """
    inputs = jax.tree.leaves(support.inputs)[0]
    flat = inputs.reshape(inputs.shape[0], -1).astype(jnp.float32)
    if spec.targets != "numbers":
        return flat.mean(axis=0)
    targets = jax.tree.leaves(support.targets)[0]
    pairs = jnp.concatenate([flat, targets.reshape(targets.shape[0], -1)], axis=1)
    return pairs[jnp.argsort(pairs[:, 0])].reshape(-1)


def select_scalar_facts(facts: PyTree) -> dict[str, np.ndarray]:
    """Return the facts that are one number for each task, and those that all ways of every task share."""
    scalars = {}
    for name, values in (facts if isinstance(facts, dict) else {}).items():
        array = np.asarray(values)
        flat = array.reshape(len(array), -1)
        if flat.shape[1] and (flat == flat[:, :1]).all():
            scalars[name] = flat[:, 0]
    return scalars


def select_classes(facts: PyTree) -> np.ndarray | None:
    """Return the class of each way of every task, [task, way]; None: the sampler names none.

    A character is the same class however it is turned.
    """
    for name in CLASSES if isinstance(facts, dict) else ():
        if name in facts and np.ndim(facts[name]) == 2:
            return np.asarray(facts[name])
    return None


def name_groups(
    tasks: TaskVectors, episodes: FrozenEpisodes
) -> tuple[TaskVectors, dict[str, tuple[str, ...]]]:
    """Return the tasks, and {fact: names} for the fact that tells the family's groups: `group` if no fact does."""
    groups = group_episodes(episodes)
    if episodes.family.groups is None or groups is None:
        return tasks, {}
    facts = [name for name, values in tasks.facts.items() if np.array_equal(values, groups)] or ["group"]
    names = {facts[0]: episodes.family.groups.names}
    return tasks._replace(facts=tasks.facts | {facts[0]: groups}), names
