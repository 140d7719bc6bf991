"""Finished runs beside one another: paired differences on the same frozen episodes, a ranking, and what each cost.

Reads what the runs left and computes no learner. Two learners that answered the same episodes are compared episode by
episode: the interval of the mean difference is that of the pairs. It is narrower than the two intervals suggest if an
episode is hard for both. Intervals are Student's, each for one pair alone: among many pairs, some exclude zero by
chance. So whether two learners differ is told by paired tests of all pairs together, corrected by Holm (`pairwise`).
"""

import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun import errors
from metarun.evaluation.statistics import Interval, choose_shown_metric, estimate_mean
from metarun.finished import pairwise
from metarun.finished.candidates import Candidate, collect_candidates
from metarun.finished.finished_run import read_result


class Choice(NamedTuple):
    """What is compared for each run."""

    mode: str | None = None  # None: the first one that the first run measured
    learner: str = "adapted"  # or unadapted, or a number of inner steps
    metric: str | None = None  # None: the first one but the loss, or the loss if there is no other


def compare(paths: list[Path], choice: Choice) -> dict[str, Any]:
    """Compare every stage of these runs, ready for JSON: best first. A stage with copies counts by its members.

    A stage without this measurement is left out if another stage of the same run has it, because some learners take no
    inner steps.

    Returns:
      {"metric", "higher_is_better", "mode", "learner", "episodes", "ranking": [{"label", "run", "stage", "mean",
      "ci95", "behind": {"mean", "ci95"}, "cost"}], "differences": [{"of", "minus", "mean", "ci95", "p", "p_holm",
      "differ"}]}; `behind` is the difference to the best, `p` the paired test's p-value for this pair alone, `p_holm`
      the one for all pairs together, and `differ` whether `p_holm` is below 5 %. With replicas, each value is first
      averaged over the replicas, and tests and intervals are over episodes: they are about the learners that were
      trained, and "seeds": {"ci95", "values"} beside them in the ranking is about other seeds. "left_out" has the
      labels of the stages that were left out.

    Raises:
      UsageError: fewer than two learners, or the choice was not measured, or not on the same episodes.
      CheckpointError, DataError: a path is no run, or its run is not finished or damaged.
    """
    results = {path: read_result(path) for path in dict.fromkeys(paths)}
    first = next(iter(results.values()))
    mode = choice.mode or first["modes"][0]
    candidates, left_out = collect_candidates(results, mode, choice.learner)
    refuse_incomparable(candidates)
    metric = choose_metric(candidates, choice.metric)
    higher_is_better = metric in first["higher_is_better"]
    ranked = sorted(candidates, key=lambda candidate: rank_key(candidate.values[metric], higher_is_better))
    differences = [subtract(*pair, metric) for pair in itertools.combinations(ranked, 2)]
    return {
        "metric": metric,
        "higher_is_better": higher_is_better,
        "mode": mode,
        "learner": choice.learner,
        "episodes": ranked[0].episodes,
        "ranking": [describe(candidate, ranked[0], metric) for candidate in ranked],
        "differences": judge_together(differences),
        "left_out": left_out,
    }


def rank_key(values: np.ndarray, higher_is_better: bool) -> float:
    """Return what the ranking sorts by; a learner that is not finite comes last."""
    mean = float(values.mean(dtype=np.float64))
    if not math.isfinite(mean):
        return math.inf
    return -mean if higher_is_better else mean


def describe(candidate: Candidate, best: Candidate, metric: str) -> dict[str, Any]:
    """Return a line of the ranking."""
    behind = None if candidate is best else pair(candidate, best, metric)._asdict()
    seeds = {}
    if candidate.seeds is not None:
        means = candidate.seeds[metric]
        seeds["seeds"] = {"ci95": estimate_mean(means).ci95, "values": means.tolist()}
    return {
        "label": candidate.label,
        "run": str(candidate.run),
        "stage": candidate.stage,
        **estimate_mean(candidate.values[metric])._asdict(),
        **seeds,
        "behind": behind,
        "cost": candidate.cost._asdict(),
    }


def subtract(left: Candidate, right: Candidate, metric: str) -> dict[str, Any]:
    """Return left − right, over the episodes."""
    values = left.values[metric].astype(np.float64) - right.values[metric]
    p_value = pairwise.find_p_value(values)
    return {"of": left.label, "minus": right.label, **estimate_mean(values)._asdict(), "p": p_value}


def judge_together(differences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each difference its p-value for all pairs together, and whether the two learners differ."""
    corrected = pairwise.correct_by_holm([difference["p"] for difference in differences])
    return [
        difference | {"p_holm": p_value, "differ": p_value < pairwise.LEVEL}
        for difference, p_value in zip(differences, corrected, strict=True)
    ]


def pair(left: Candidate, right: Candidate, metric: str) -> Interval:
    """Return the mean difference of two learners on the same episodes."""
    return estimate_mean(left.values[metric].astype(np.float64) - right.values[metric])


def refuse_incomparable(candidates: list[Candidate]) -> None:
    """Refuse learners that cannot be compared pairwise."""
    if len(candidates) < 2:
        raise errors.UsageError(
            "there is one learner, and nothing to compare it with", "metarun compare", "give two runs or more"
        )
    first = candidates[0]
    for other in candidates[1:]:
        if other.episodes != first.episodes:
            raise errors.UsageError(
                f"{first.label} and {other.label} were measured on different episodes: "
                f"{format_episodes(first.episodes)} and {format_episodes(other.episodes)}",
                str(other.run),
                "compare runs whose task and evaluation sections ask for the same split, seed, ways, shots and queries",
            )


def format_episodes(episodes: dict[str, Any]) -> str:
    """Return `600 test (1f2e…)`."""
    return f"{episodes['count']} {episodes['split']} ({episodes['hash']})"


def choose_metric(candidates: Iterable[Candidate], metric: str | None) -> str:
    """Return the metric to compare by: the one that is named, or one that all have.

    Raises:
      UsageError: not all have measured the one that is named.
    """
    first, *others = candidates
    shared = [name for name in first.values if all(name in other.values for other in others)]
    if metric is not None and metric not in shared:
        raise errors.UsageError(
            f"not all runs have measured {metric}", "--metric", f"choose one of {', '.join(shared)}"
        )
    return metric or choose_shown_metric(shared)
