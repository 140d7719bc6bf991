"""Learners that follow a task as it changes: how good each is, time after time, along streams of episodes.

At every time a learner first answers queries of the task as it is now (`before`), then sees a new support of it, and
answers the same queries again (`after`). Four learners go along the same streams, each adapted at time 0:

    kept         adapted at time 0, and never again
    restarted    adapted at each time from the meta-learned start, to the newest support alone
    continued    goes on adapting from where it was (`Algorithm.update`); absent if an algorithm cannot
    adaptive     decides at each time to restart, to continue or to recall (`metarun.finished.adaptive_learner`); absent
                 if an algorithm cannot continue or takes no inner steps

A stream changes in one of three ways. s is its speed, and whole positions on a path are independent tasks:

    drift       position s · time: the task changes little by little
    switches    with probability s at each time, to a task that was never there
    returns     with probability s at each time, to another one of few tasks, all alike

The `before` of a learner is its score in prequential evaluation (Dawid 1984; Gama, Sebastião, Rodrigues 2013): it
answers before it learns.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from metarun import base, errors
from metarun.base import PyTree
from metarun.evaluation.episodes import FrozenEpisodes
from metarun.evaluation.statistics import choose_shown_metric, estimate_mean
from metarun.finished import adaptive_learner
from metarun.finished.finished_run import FinishedRun
from metarun.finished.opened_run import OpenedLearner, describe_skipped, freeze_episodes, open_learner

AT_ONCE = 32  # streams that are followed in parallel
LEARNERS = ("kept", "restarted", "continued", "adaptive")
MOMENTS = ("before", "after")
PLACES = 2  # folded into the key of a stream, for where it goes

# {learner: {"before", "after": {metric: [stream, time]}}}
Scores = dict[str, dict[str, dict[str, np.ndarray]]]


class Stream(NamedTuple):
    """How a task changes, and for how long."""

    times: int = 30  # how often a learner is asked, after time 0
    # Of `drift`, how much of the way from one task to an independent one lies between two times; else how likely the
    # task is another one at the next time.
    speed: float = 0.1
    kind: Literal["drift", "switches", "returns"] = "drift"
    tasks: int = 3  # how many tasks a stream of `returns` has


def measure(run: FinishedRun, stream: Stream) -> dict[str, Any]:
    """Follow as many frozen streams as the run evaluates episodes.

    Returns:
      {"run", "stage", "step", "split", "mode", "streams", "times", "speed", "kind", "tasks", "metric", "learners":
      {learner: {"before" | "after": {metric: {"mean", "ci95", "over_time": {"mean": [time], "ci95": [time]}}}}}}: the
      first mean is over streams and times; all intervals are over streams. `metric` is the one that the picture shows.
      If there is an adaptive learner, also "choices", {"continue" | "restart" | "recall": share of all times}, the same
      as "choices_at_changes" of the times at which the task has become another one (not in a drift), and
      "pairs", {learner: {moment: {metric: {"mean", "ci95"}}}}: adaptive minus each other learner, paired by stream.

    Raises:
      MetarunError: what is wrong with the run or with the choice; UsageError: the tasks of the family do not drift.
    """
    opened = open_learner(run)
    refuse_without_drift(opened)
    episodes = freeze_episodes(opened)
    follow = make_follow(opened.algorithm, episodes.family, stream)
    scores, choices = follow_streams(follow, opened.weights, episodes)
    learners = {
        name: {moment: summarise(columns) for moment, columns in moments.items()}
        for name, moments in scores.items()
    }
    settings = opened.evaluation
    head = {"run": str(opened.path), "stage": opened.stage, "step": opened.step, "split": settings.split}
    head |= {"mode": opened.mode, "streams": settings.episodes, **stream._asdict()}
    head |= describe_skipped(opened.skipped)
    metric = choose_shown_metric(learners["kept"]["after"])
    measured = head | {"metric": metric, "learners": learners}
    if choices is None:
        return measured
    measured |= {"choices": count_choices(choices), "pairs": compare_pairs(scores)}
    changed = find_changes(stream, episodes.keys)
    at_changes = stream.kind != "drift" and changed.any()
    return measured | ({"choices_at_changes": count_choices(choices[changed])} if at_changes else {})


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


def place_stream(stream: Stream, key: PRNGKeyArray) -> Float[Array, "time"]:
    """Return the position on the path of tasks at each time, from 0 on."""
    if stream.kind == "drift":
        return jnp.arange(stream.times + 1, dtype=jnp.uint32) * stream.speed
    change_key, task_key = jax.random.split(key)
    changes = jax.random.bernoulli(change_key, stream.speed, (stream.times,)).astype(jnp.int32)
    if stream.kind == "returns":  # by how many of the tasks it goes on, in a circle
        changes = changes * jax.random.randint(task_key, changes.shape, 1, stream.tasks)
    places = jnp.pad(jnp.cumsum(changes), (1, 0))
    return (places % stream.tasks if stream.kind == "returns" else places).astype(jnp.float32)


def find_changes(stream: Stream, keys: Key[Array, "stream"]) -> Bool[np.ndarray, "stream time"]:
    """Return at which times, from 1 on, the task of each stream is another one than before."""
    places = jax.vmap(lambda key: place_stream(stream, jax.random.fold_in(key, PLACES)))(keys)
    return np.asarray(places[:, 1:] != places[:, :-1])


def make_follow(algorithm: base.Algorithm, family: base.TaskFamily, stream: Stream) -> Callable:
    """Make (weights, data of a split, key) -> what happened along ONE stream.

    It is {learner: {"before", "after": {metric: [time]}}}, and the choices [time] of the adaptive learner under
    "choices", if there is one.
    """
    assert family.drift is not None
    drift, objective = family.drift, family.problem.objective
    adaptive = adaptive_learner.make(algorithm, objective)

    def follow(weights: base.Weights, data: PyTree, key):
        task_key, examples_key = jax.random.split(key)
        positions = place_stream(stream, jax.random.fold_in(key, PLACES))

        def draw_episode(time) -> base.Episode:
            return drift(data, task_key, positions[time], jax.random.fold_in(examples_key, time))

        def judge(learners, query: base.Examples):
            def judge_one(learner):
                return objective.metrics(lambda inputs: algorithm.predict(learner, inputs), query)

            return {name: judge_one(learner) for name, learner in learners.items()}

        def show(learners, state):
            """Return the learners with the one that answers for the adaptive learner."""
            return learners if adaptive is None else learners | {"adaptive": adaptive.answer(state)}

        def advance(carried, time):
            learners, state = carried
            now, choice = draw_episode(time), None
            adapted = learners | {"restarted": algorithm.adapt(weights, now.support)}
            if algorithm.update is not None:
                adapted["continued"] = algorithm.update(weights, learners["continued"], now.support)
            before = judge(show(learners, state), now.query)
            if adaptive is not None:
                state, choice = adaptive.advance(weights, state, now.support, adapted["restarted"], time)
            after = judge(show(adapted, state), now.query)
            return (adapted, state), ({"before": before, "after": after}, choice)

        first = algorithm.adapt(weights, draw_episode(jnp.zeros((), jnp.uint32)).support)
        names = ["kept", "restarted", *(["continued"] if algorithm.update is not None else [])]
        state = None if adaptive is None else adaptive.start(first)
        times = jnp.arange(1, stream.times + 1, dtype=jnp.uint32)
        start = (dict.fromkeys(names, first), state)
        notes, choices = jax.lax.scan(advance, start, times)[1]
        scores = {name: {moment: notes[moment][name] for moment in MOMENTS} for name in notes["after"]}
        return scores if adaptive is None else scores | {"choices": choices}

    return follow


def follow_streams(
    follow: Callable, weights: base.Weights, episodes: FrozenEpisodes
) -> tuple[Scores, np.ndarray | None]:
    """Follow every stream, in one compiled program. Returns the scores, and the choices [stream, time] if there are."""

    @jax.jit
    def program(weights, data, keys):
        return jax.lax.map(lambda key: follow(weights, data, key), keys, batch_size=AT_ONCE)

    found = jax.device_get(program(weights, episodes.data, episodes.keys))
    scores = {  # in our order: jax has sorted the names
        name: {moment: found[name][moment] for moment in MOMENTS} for name in LEARNERS if name in found
    }
    return scores, found.get("choices")


def count_choices(choices: np.ndarray) -> dict[str, float]:
    """Return the share of all times at which the adaptive learner chose each."""
    names = adaptive_learner.CHOICES
    return {name: float(np.mean(choices == number)) for number, name in enumerate(names)}


def compare_pairs(scores: Scores) -> dict[str, Any]:
    """Return {learner: {moment: {metric: {"mean", "ci95"}}}}: adaptive minus the learner, over streams.

    The value of a stream is its mean over times, so that streams are the units of the interval.
    """
    adaptive = scores["adaptive"]

    def compare(columns: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> dict[str, Any]:
        return {
            metric: estimate_mean((own[metric] - values).mean(axis=1))._asdict()
            for metric, values in columns.items()
        }

    return {
        name: {moment: compare(columns, adaptive[moment]) for moment, columns in moments.items()}
        for name, moments in scores.items()
        if name != "adaptive"
    }


def summarise(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return {metric: {"mean", "ci95", "over_time": {"mean": [time], "ci95": [time]}}} from values [stream, time]."""
    result = {}
    for name, values in columns.items():
        times = [estimate_mean(column) for column in values.T]
        over_time = {"mean": [time.mean for time in times], "ci95": [time.ci95 for time in times]}
        result[name] = estimate_mean(values.mean(axis=1))._asdict() | {"over_time": over_time}
    return result
