"""Learners that follow a task as it drifts: how good each is, time after time, along streams of episodes.

At every time a learner first answers queries of the task as it is now (`before`), then sees a new support of it, and
answers the same queries again (`after`). Three learners go along the same streams, each adapted at time 0:

    kept         adapted at time 0, and never again
    restarted    adapted at each time from the meta-learned start, to the newest support alone
    continued    goes on adapting from where it was (`Algorithm.update`); absent where an algorithm cannot

The `before` of a learner is its score in prequential evaluation (Dawid 1984; Gama, Sebastião, Rodrigues 2013): it
answers before it learns. Prints and writes nothing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metarun import base, errors, evaluation, opening
from metarun.base import PyTree

AT_ONCE = 32  # streams that are followed in parallel
COLORS = {"kept": "silver", "restarted": "tab:blue", "continued": "tab:purple"}

Scores = dict[
    str, dict[str, dict[str, np.ndarray]]
]  # {learner: {"before", "after": {metric: [stream, time]}}}


class Stream(NamedTuple):
    """How a task drifts, and for how long."""

    times: int = 30  # at which a learner is asked, after time 0
    speed: float = (
        0.1  # how much of the way from one task to an independent one it drifts from a time to the next
    )


def measure(
    path: Path,
    stream: Stream,
    *,
    stage: str | None = None,
    split: str | None = None,
    mode: str | None = None,
    overrides: list[str] | tuple[str, ...] = (),
) -> dict[str, Any]:
    """Follow as many frozen streams as the run evaluates episodes. Writes nothing to the run.

    Args:
      path, stage, split, mode, overrides: as of `opening.open_stage`.

    Returns:
      {"run", "stage", "step", "split", "mode", "streams", "times", "speed", "metric", "learners": {learner: {"before" |
      "after": {metric: {"mean", "ci95", "over_time": {"mean": [time], "ci95": [time]}}}}}}: the first mean is over
      streams and times; all intervals are over streams. `metric` is the one that the picture shows.

    Raises:
      MetarunError: what is wrong with the run or with the choice; UsageError: the tasks of the family do not drift.
    """
    opened = opening.open_stage(path, stage=stage, split=split, mode=mode, overrides=overrides)
    wanted = opened.evaluation
    if opened.family.drift is None:
        raise errors.UsageError(
            "the tasks of this family do not drift",
            str(opened.path),
            "choose a run of a family that has `drift`, such as sinusoid or omniglot",
        )
    if opened.family.objective.score is not None:
        raise errors.UsageError("this family is scored on the host", str(opened.path), "use metarun eval")
    keys = evaluation.episode_keys(wanted.seed, wanted.split, wanted.episodes)
    scores = follow_all(
        make_follow(opened.algorithm, opened.family, stream), opened.weights, opened.data, keys
    )
    learners = {
        name: {moment: summarise(part) for moment, part in moments.items()}
        for name, moments in scores.items()
    }
    head = {"run": str(opened.path), "stage": opened.stage, "step": opened.step, "split": wanted.split}
    head |= {"mode": opened.mode, "streams": wanted.episodes, **stream._asdict()}
    names = list(learners["kept"]["after"])
    metric = next((name for name in names if name != "loss"), names[0])
    return head | {"metric": metric, "learners": learners}


def make_follow(algorithm: base.Algorithm, family: base.TaskFamily, stream: Stream) -> Callable:
    """(weights, data of a split, key) -> {learner: {"before", "after": {metric: [time]}}}: ONE stream."""
    assert family.drift is not None
    drift = family.drift

    def follow(weights: base.Weights, data: PyTree, key):
        task_key, examples_key = jax.random.split(key)

        def episode(time) -> base.Episode:
            return drift(data, task_key, time * stream.speed, jax.random.fold_in(examples_key, time))

        def scores(learners, query: base.Examples):
            def of_one(learner):
                return family.objective.metrics(lambda inputs: algorithm.predict(learner, inputs), query)

            return {name: of_one(learner) for name, learner in learners.items()}

        def advance(learners, time):
            now = episode(time)
            adapted = learners | {"restarted": algorithm.adapt(weights, now.support)}
            if algorithm.update is not None:
                adapted["continued"] = algorithm.update(weights, learners["continued"], now.support)
            return adapted, {"before": scores(learners, now.query), "after": scores(adapted, now.query)}

        first = algorithm.adapt(weights, episode(jnp.zeros((), jnp.uint32)).support)
        names = ["kept", "restarted", *(["continued"] if algorithm.update is not None else [])]
        times = jnp.arange(1, stream.times + 1, dtype=jnp.uint32)
        _, notes = jax.lax.scan(advance, dict.fromkeys(names, first), times)
        return {name: {moment: notes[moment][name] for moment in ("before", "after")} for name in names}

    return follow


def follow_all(follow: Callable, weights: base.Weights, data: PyTree, keys) -> Scores:
    """Every stream, in one compiled program."""

    @jax.jit
    def program(weights, data, keys):
        return jax.lax.map(lambda key: follow(weights, data, key), keys, batch_size=AT_ONCE)

    found = jax.device_get(program(weights, data, keys))
    return {  # in our order: jax has sorted the names
        name: {moment: found[name][moment] for moment in ("before", "after")}
        for name in COLORS
        if name in found
    }


def summarise(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """{metric: {"mean", "ci95", "over_time": {"mean": [time], "ci95": [time]}}} of values [stream, time]."""
    result = {}
    for name, values in columns.items():
        moments = [evaluation.interval(column) for column in values.T]
        over_time = {"mean": [each.mean for each in moments], "ci95": [each.ci95 for each in moments]}
        result[name] = evaluation.interval(values.mean(axis=1))._asdict() | {"over_time": over_time}
    return result


def draw(figure, found: dict[str, Any]) -> None:
    """The metric over time: what a learner answered before the new support, and after it."""
    metric, times = found["metric"], np.arange(1, found["times"] + 1)
    axes = figure.subplots(1, 2, sharey=True)
    for place, moment in zip(axes, ("before", "after"), strict=True):
        for name, moments in found["learners"].items():
            curve = moments[moment][metric]["over_time"]
            mean, ci95 = np.array(curve["mean"]), np.array(curve["ci95"])
            place.plot(times, mean, color=COLORS[name], label=name)
            place.fill_between(times, mean - ci95, mean + ci95, color=COLORS[name], alpha=0.25, linewidth=0)
        place.set(xlabel="time", title=f"{moment} the new support")
    axes[0].set_ylabel(metric)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
