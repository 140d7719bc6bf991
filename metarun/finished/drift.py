"""Learners that follow a task as it drifts: how good each is, time after time, along streams of episodes.

At every time a learner first answers queries of the task as it is now (`before`), then sees a new support of it, and
answers the same queries again (`after`). Three learners go along the same streams, each adapted at time 0:

    kept         adapted at time 0, and never again
    restarted    adapted at each time from the meta-learned start, to the newest support alone
    continued    goes on adapting from where it was (`Algorithm.update`); absent if an algorithm cannot

The `before` of a learner is its score in prequential evaluation (Dawid 1984; Gama, Sebastião, Rodrigues 2013): it
answers before it learns.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, errors
from metarun.base import PyTree
from metarun.evaluation.episodes import FrozenEpisodes
from metarun.evaluation.statistics import choose_shown_metric, estimate_mean
from metarun.finished.finished_run import FinishedRun
from metarun.finished.opened_run import OpenedLearner, freeze_episodes, open_learner

AT_ONCE = 32  # streams that are followed in parallel
LEARNERS = ("kept", "restarted", "continued")
MOMENTS = ("before", "after")

# {learner: {"before", "after": {metric: [stream, time]}}}
Scores = dict[str, dict[str, dict[str, np.ndarray]]]


class Stream(NamedTuple):
    """How a task drifts, and for how long."""

    times: int = 30  # how often a learner is asked, after time 0
    # How much of the way from one task to an independent one it drifts from a time to the next.
    speed: float = 0.1


def measure(run: FinishedRun, stream: Stream) -> dict[str, Any]:
    """Follow as many frozen streams as the run evaluates episodes.

    Returns:
      {"run", "stage", "step", "split", "mode", "streams", "times", "speed", "metric", "learners": {learner: {"before" |
      "after": {metric: {"mean", "ci95", "over_time": {"mean": [time], "ci95": [time]}}}}}}: the first mean is over
      streams and times; all intervals are over streams. `metric` is the one that the picture shows.

    Raises:
      MetarunError: what is wrong with the run or with the choice; UsageError: the tasks of the family do not drift.
    """
    opened = open_learner(run)
    refuse_without_drift(opened)
    episodes = freeze_episodes(opened)
    scores = follow_streams(make_follow(opened.algorithm, episodes.family, stream), opened.weights, episodes)
    learners = {
        name: {moment: summarise(columns) for moment, columns in moments.items()}
        for name, moments in scores.items()
    }
    settings = opened.evaluation
    head = {"run": str(opened.path), "stage": opened.stage, "step": opened.step, "split": settings.split}
    head |= {"mode": opened.mode, "streams": settings.episodes, **stream._asdict()}
    metric = choose_shown_metric(learners["kept"]["after"])
    return head | {"metric": metric, "learners": learners}


def refuse_without_drift(opened: OpenedLearner) -> None:
    """Raise UsageError if the tasks of the family do not drift, or are scored on the host."""
    family = opened.tasks.evaluated
    if family.drift is None:
        raise errors.UsageError(
            "the tasks of this family do not drift",
            str(opened.path),
            "choose a run of a family that has `drift`, such as sinusoid or omniglot",
        )
    if family.problem.objective.score is not None:
        raise errors.UsageError("this family is scored on the host", str(opened.path), "use metarun eval")


def make_follow(algorithm: base.Algorithm, family: base.TaskFamily, stream: Stream) -> Callable:
    """Make (weights, data of a split, key) -> {learner: {"before", "after": {metric: [time]}}}, for ONE stream."""
    assert family.drift is not None
    drift, objective = family.drift, family.problem.objective

    def follow(weights: base.Weights, data: PyTree, key):
        task_key, examples_key = jax.random.split(key)

        def draw_episode(time) -> base.Episode:
            return drift(data, task_key, time * stream.speed, jax.random.fold_in(examples_key, time))

        def judge(learners, query: base.Examples):
            def judge_one(learner):
                return objective.metrics(lambda inputs: algorithm.predict(learner, inputs), query)

            return {name: judge_one(learner) for name, learner in learners.items()}

        def advance(learners, time):
            now = draw_episode(time)
            adapted = learners | {"restarted": algorithm.adapt(weights, now.support)}
            if algorithm.update is not None:
                adapted["continued"] = algorithm.update(weights, learners["continued"], now.support)
            return adapted, {"before": judge(learners, now.query), "after": judge(adapted, now.query)}

        first = algorithm.adapt(weights, draw_episode(jnp.zeros((), jnp.uint32)).support)
        names = ["kept", "restarted", *(["continued"] if algorithm.update is not None else [])]
        times = jnp.arange(1, stream.times + 1, dtype=jnp.uint32)
        _, notes = jax.lax.scan(advance, dict.fromkeys(names, first), times)
        return {name: {moment: notes[moment][name] for moment in MOMENTS} for name in names}

    return follow


def follow_streams(follow: Callable, weights: base.Weights, episodes: FrozenEpisodes) -> Scores:
    """Follow every stream, in one compiled program."""

    @jax.jit
    def program(weights, data, keys):
        return jax.lax.map(lambda key: follow(weights, data, key), keys, batch_size=AT_ONCE)

    scores = jax.device_get(program(weights, episodes.data, episodes.keys))
    return {  # in our order: jax has sorted the names
        name: {moment: scores[name][moment] for moment in MOMENTS} for name in LEARNERS if name in scores
    }


def summarise(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return {metric: {"mean", "ci95", "over_time": {"mean": [time], "ci95": [time]}}} from values [stream, time]."""
    result = {}
    for name, values in columns.items():
        times = [estimate_mean(column) for column in values.T]
        over_time = {"mean": [time.mean for time in times], "ci95": [time.ci95 for time in times]}
        result[name] = estimate_mean(values.mean(axis=1))._asdict() | {"over_time": over_time}
    return result
