"""Finished runs beside one another: paired differences on the same frozen episodes, a ranking, and what each cost.

Reads what the runs left and computes no learner. Two learners that answered the same episodes are compared episode by
episode, and seed by seed if both have several: the interval of the mean difference is that of the pairs. It is narrower
than the two intervals suggest if an episode is hard for both. Each interval is for one pair alone: among many pairs,
some exclude zero by chance. So whether two learners differ is told by paired tests of all pairs together, corrected by
Holm (`pairwise`). Intervals are over seeds and episodes (`evaluation.statistics`); with one seed they are over episodes
alone, and `notes` says so.
"""

import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun import config, errors
from metarun.config import random_weights
from metarun.evaluation.statistics import choose_shown_metric, estimate_mean, summarise_column
from metarun.evaluation.wording import ONE_SEED
from metarun.finished import baselines, ceiling, moved_weights, pairwise
from metarun.finished.candidates import Candidate, collect_candidates
from metarun.finished.costs import Cost, judge_budgets
from metarun.finished.finished_run import read_result
from metarun.runs import directory

SHOWN = 5  # labels in a note


class Choice(NamedTuple):
    """What is compared for each run."""

    mode: str | None = None  # None: the first one that the first run measured
    learner: str = "adapted"  # or unadapted, or a number of inner steps
    # None: the headline of the task family, if all have measured it; else the first one but the loss, or the loss if
    # there is no other.
    metric: str | None = None
    # Whether the baselines are computed if the runs do not keep them yet; those that are kept are always shown.
    baselines: bool = False
    weights: Path | None = None  # where the file of weights of the runs lies now, for their baselines


def compare(paths: list[Path], choice: Choice) -> dict[str, Any]:
    """Compare every stage of these runs, ready for JSON: best first. A stage with copies counts by its members.

    A stage without this measurement is left out if another stage of the same run has it, because some learners take no
    inner steps.

    Returns:
      {"metric", "higher_is_better", "mode", "learner", "episodes", "ranking": [{"label", "run", "stage", "mean",
      "ci95", "behind": {"mean", "ci95"}, "cost"}], "differences": [{"of", "minus", "mean", "ci95", "seeds", "p",
      "p_holm", "differ"}]}; `behind` is the difference to the best, `p` the paired test's p-value for this pair alone,
      `p_holm` the one for all pairs together, and `differ` whether `p_holm` is below 5 %. A difference is over the
      `seeds` that both learners have; if these are fewer than two it is paired by episode alone. A learner with several
      seeds has "episodes": {"ci95"} and "seeds": {"ci95", "values", "numbers"} beside its interval, each over that
      axis alone. "ceiling" is what the best possible rule reaches, {"mean", "ci95", "behind"}, or None (`ceiling`).
      "notes" are sentences about what the numbers cannot say. "left_out" has the labels of the stages that were left
      out, and "budgets" whose training was longer or shorter (`costs.Budgets`).

    Raises:
      UsageError: fewer than two learners, or the choice was not measured, or not on the same episodes.
      CheckpointError, DataError: a path is no run, or its run is not finished or damaged.
    """
    results = {path: read_result(path) for path in dict.fromkeys(paths)}
    first = next(iter(results.values()))
    mode = choice.mode or first["modes"][0]
    candidates, left_out = collect_candidates(results, mode, choice.learner)
    candidates += collect_baselines(results, choice.baselines, choice.weights)
    refuse_incomparable(candidates)
    metric = choose_metric(candidates, choice.metric, read_headline(results))
    higher_is_better = metric in first["higher_is_better"]
    ranked = sorted(candidates, key=lambda candidate: rank_key(candidate.values[metric], higher_is_better))
    with np.errstate(invalid="ignore", over="ignore"):
        differences = [subtract(*pair, metric) for pair in itertools.combinations(ranked, 2)]
        ranking = [describe(candidate, ranked[0], metric) for candidate in ranked]
    return {
        "metric": metric,
        "higher_is_better": higher_is_better,
        "mode": mode,
        "learner": choice.learner,
        "episodes": ranked[0].episodes,
        "ranking": ranking,
        "differences": judge_together(differences),
        "ceiling": describe_ceiling(results, ranked[0], metric),
        "notes": [*list_notes(ranked), *note_random_weights(ranked)],
        "left_out": left_out,
        "budgets": judge_budgets([candidate.cost._asdict() for candidate in ranked])._asdict(),
    }


def collect_baselines(
    results: dict[Path, dict[str, Any]], compute_missing: bool, weights: Path | None = None
) -> list[Candidate]:
    """Return the baselines on the episodes of the first run that keeps them, or of the first run if they are asked for.

    Raises:
      UsageError: they are asked for, and there are none for these runs, or none of them takes a file of weights.
    """
    taken = {path: weights is not None and moved_weights.takes_weights(path) for path in results}
    if weights is not None and not any(taken.values()):
        raise moved_weights.refuse(weights, list(results))
    for path, result in results.items():
        place = weights if taken[path] else None
        if kept := baselines.find_values(path, result, compute_missing, place):
            same = {"split": result["split"], **result["episodes"]}
            free = Cost(0, 0.0, 0.0, 0, 0, flops=0.0, all_parameters=0)
            return [
                Candidate(
                    name, path, name, {key: column[None] for key, column in columns.items()}, same, free
                )
                for name, columns in kept.items()
            ]
    return []


def rank_key(values: np.ndarray, higher_is_better: bool) -> float:
    """Return what the ranking sorts by; a learner that is not finite comes last."""
    mean = float(values.mean(dtype=np.float64))
    if not math.isfinite(mean):
        return math.inf
    return -mean if higher_is_better else mean


def describe(candidate: Candidate, best: Candidate, metric: str) -> dict[str, Any]:
    """Return a line of the ranking."""
    values = candidate.values[metric]
    summary = summarise_column(values) if len(values) > 1 else estimate_mean(values[0])._asdict()
    summary.pop("not_finite", None)
    if len(values) > 1:
        summary["seeds"] |= {"numbers": list(candidate.seeds)}
    behind = None
    if candidate is not best:
        difference = pairwise.subtract(candidate.measure(metric), best.measure(metric))
        behind = difference.estimate.interval._asdict()
    return {
        "label": candidate.label,
        "run": str(candidate.run),
        "stage": candidate.name,
        **summary,
        "behind": behind,
        "cost": candidate.cost._asdict(),
    }


def subtract(left: Candidate, right: Candidate, metric: str) -> dict[str, Any]:
    """Return left − right, by pairs of seed and episode."""
    estimate, seeds = pairwise.subtract(left.measure(metric), right.measure(metric))
    return {
        "of": left.label,
        "minus": right.label,
        **estimate.interval._asdict(),
        "seeds": list(seeds),
        "p": pairwise.find_p_value(estimate),
    }


def judge_together(differences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each difference its p-value for all pairs together, and whether the two learners differ."""
    corrected = pairwise.correct_by_holm([difference["p"] for difference in differences])
    return [
        difference | {"p_holm": p_value, "differ": p_value < pairwise.LEVEL}
        for difference, p_value in zip(differences, corrected, strict=True)
    ]


def describe_ceiling(
    results: dict[Path, dict[str, Any]], best: Candidate, metric: str
) -> dict[str, Any] | None:
    """Return what the best possible rule reaches on the same episodes; None: it is not known."""
    path, result = next(iter(results.items()))  # all runs answered the same episodes
    values = ceiling.find_values(path, result)
    if values is None or metric not in values:
        return None
    column = np.asarray(values[metric], np.float64)
    behind = pairwise.subtract(pairwise.Measured(column[None], ()), best.measure(metric))
    return estimate_mean(column)._asdict() | {"behind": behind.estimate.interval._asdict()}


def list_notes(candidates: list[Candidate]) -> list[str]:
    """Return sentences about what the intervals of these learners cannot say."""
    notes = []
    if single := [candidate.label for candidate in candidates if candidate.replicas == 1]:
        named = f" ({name_some(single)})" if len(single) < len(candidates) else ""
        notes.append(f"{ONE_SEED}{named}")
    merged = [candidate.label for candidate in candidates if candidate.rows < candidate.replicas]
    if merged:
        notes.append(
            f"no values of single seeds in the files of {name_some(merged)}: an older version wrote their mean, so "
            "their intervals are over episodes alone"
        )
    several = [set(candidate.seeds) for candidate in candidates if len(candidate.seeds) > 1]
    if any(seeds != several[0] for seeds in several):
        notes.append(
            "not all have the same seeds: a difference is over the seeds that both have, or by pairs of episodes "
            "alone if these are fewer than two"
        )
    return notes


def note_random_weights(candidates: list[Candidate]) -> list[str]:
    """Return a sentence about the learners whose network nothing has trained, if there are any."""
    configs = {path: read_config(path) for path in dict.fromkeys(candidate.run for candidate in candidates)}
    labels = [
        candidate.label
        for candidate in candidates
        if (own := configs[candidate.run]) is not None
        and random_weights.stands_on_random_weights(own, candidate.stage)
    ]
    return [f"{random_weights.SAID}: {name_some(labels)}"] if labels else []


def name_some(labels: list[str]) -> str:
    """Return a few labels, and how many more there are."""
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return f"{', '.join(labels[:SHOWN])}{more}"


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


def read_headline(paths: Iterable[Path]) -> str | None:
    """Return the metric by which the task family of the first run ranks learners; None: it names none."""
    first = read_config(next(iter(paths)))
    headline: str | None = getattr(first.task.config, "headline", None) if first else None
    return headline


def read_config(run: Path) -> config.RunConfig | None:
    """Return the config of a run; None: it cannot be read any more, such as one of a plug-in that is gone."""
    try:
        return config.load(run / directory.CONFIG)
    except errors.MetarunError:
        return None


def choose_metric(candidates: Iterable[Candidate], metric: str | None, headline: str | None = None) -> str:
    """Return the metric to compare by: the one that is named, or the headline if all have it, or another that all have.

    Raises:
      UsageError: not all have measured the one that is named.
      DataError: nothing was measured for all.
    """
    first, *others = candidates
    shared = [name for name in first.values if all(name in other.values for other in others)]
    if not shared:
        where = ", ".join(str(candidate.run) for candidate in candidates)
        raise errors.DataError("no metric was measured for all runs", where, "compare runs of one task")
    if metric is not None and metric not in shared:
        raise errors.UsageError(
            f"not all runs have measured {metric}", "--metric", f"choose one of {', '.join(shared)}"
        )
    return metric or (headline if headline in shared else choose_shown_metric(shared))
