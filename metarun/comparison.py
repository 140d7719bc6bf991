"""Finished runs beside one another: paired differences on the same frozen episodes, a ranking, and what each cost.

Reads what the runs left and computes no learner. Two learners that answered the same episodes are compared episode by
episode: the interval of the mean difference is that of the pairs, narrower than the two intervals suggest where an
episode is hard for both. Intervals are Student's, for each pair by itself: of many pairs some exclude zero by chance.
"""

import itertools
import json
import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun import errors, evaluation
from metarun.runs import directory, manifest

WIDE = 30  # times: errors that lie further apart are drawn on a logarithmic scale
LOWER_IS_BETTER = ("loss",)  # every other metric of every family is better when higher


class Cost(NamedTuple):
    """What a stage took, from its checkpoint; None where that is gone."""

    steps: int | None  # outer steps
    seconds: float | None  # of training, without compiling and measuring
    earlier_seconds: float | None  # of the stages before it, on which it may build
    parameters: int | None  # numbers that are trained, of one learner
    state_bytes: int | None  # of weights and optimizer, in memory and in a checkpoint


class Candidate(NamedTuple):
    """One stage of one run, or one member of it, as it was measured."""

    label: str
    run: Path
    stage: str
    values: dict[str, np.ndarray]  # {metric: [episode]}, of several replicas their mean
    episodes: dict[str, Any]  # split, count and hash
    cost: Cost
    seeds: dict[str, np.ndarray] | None = None  # {metric: [replica]}, the mean of each; None: there is one


class Choice(NamedTuple):
    """What is compared of each run."""

    mode: str | None = None  # None: the first one that the first run measured
    learner: str = "adapted"  # or unadapted, or a number of inner steps
    metric: str | None = None  # None: the first one but the loss, or the loss where there is no other


def compare(paths: list[Path], choice: Choice) -> dict[str, Any]:
    """The comparison of every stage of these runs, ready for JSON: best first. With copies every member counts.

    A stage that was not measured so is left out where another one of its run was: not every learner has inner steps.

    Returns:
      {"metric", "higher_is_better", "mode", "learner", "episodes", "ranking": [{"label", "run", "stage", "mean",
      "ci95", "behind": {"mean", "ci95"}, "cost"}], "differences": [{"of", "minus", "mean", "ci95", "differ"}]};
      `behind` is the difference to the best, and `differ` says whether its interval excludes zero. Of a run with
      replicas all these are of their mean, over the episodes; "seeds": {"ci95", "values"} stands in its ranking.
      "left_out" has the labels of the stages that were.

    Raises:
      UsageError: fewer than two stages, or what is asked for was not measured, or not on the same episodes.
      CheckpointError, DataError: a run is none, is not finished, or is damaged.
    """
    results = {path: read_result(path) for path in dict.fromkeys(paths)}
    mode = choice.mode or next(iter(results.values()))["modes"][0]
    named = list(zip(labels(list(results)), results.items(), strict=True))
    candidates = [
        candidate
        for label, (path, result) in named
        for candidate in candidates_of(path, label, result, mode, choice.learner)
    ]
    counted = {(each.run, each.stage.partition("[")[0]) for each in candidates}
    refuse_incomparable(candidates)
    metric = choose_metric(candidates, choice.metric)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    ranked = sorted(candidates, key=lambda each: badness(each.values[metric], sign))
    best = ranked[0]
    return {
        "metric": metric,
        "higher_is_better": sign > 0,
        "mode": mode,
        "learner": choice.learner,
        "episodes": best.episodes,
        "ranking": [entry(each, best, metric) for each in ranked],
        "differences": [difference(*pair, metric) for pair in itertools.combinations(ranked, 2)],
        "left_out": [
            f"{label}/{stage}"
            for label, (path, result) in named
            for stage in result["stages"]
            if (path, stage) not in counted
        ],
    }


def badness(values: np.ndarray, sign: int) -> float:
    """What the ranking sorts by; a learner that is not finite comes last."""
    mean = float(values.mean(dtype=np.float64))
    return -sign * mean if math.isfinite(mean) else math.inf


def entry(each: Candidate, best: Candidate, metric: str) -> dict[str, Any]:
    """A line of the ranking."""
    behind = None if each is best else paired(each, best, metric)._asdict()
    head = {"label": each.label, "run": str(each.run), "stage": each.stage}
    seeds = {}
    if each.seeds is not None:
        of_seeds = each.seeds[metric]
        seeds["seeds"] = {"ci95": evaluation.interval(of_seeds).ci95, "values": of_seeds.tolist()}
    return {
        **head,
        **evaluation.interval(each.values[metric])._asdict(),
        **seeds,
        "behind": behind,
        "cost": each.cost._asdict(),
    }


def difference(left: Candidate, right: Candidate, metric: str) -> dict[str, Any]:
    """left − right, over the episodes."""
    found = paired(left, right, metric)
    differ = bool(abs(found.mean) > found.ci95)
    return {"of": left.label, "minus": right.label, **found._asdict(), "differ": differ}


def paired(left: Candidate, right: Candidate, metric: str) -> evaluation.Interval:
    """The mean difference of two learners on the same episodes."""
    return evaluation.interval(left.values[metric].astype(np.float64) - right.values[metric])


def refuse_incomparable(candidates: list[Candidate]) -> None:
    """Refuse what cannot be compared pairwise."""
    if len(candidates) < 2:
        raise errors.UsageError(
            "there is one learner, and nothing to compare it with", "metarun compare", "give two runs or more"
        )
    first = candidates[0]
    for other in candidates[1:]:
        if other.episodes != first.episodes:
            raise errors.UsageError(
                f"{first.label} and {other.label} were measured on different episodes: {spoken(first.episodes)} and "
                f"{spoken(other.episodes)}",
                str(other.run),
                "compare runs whose task and evaluation sections ask for the same split, seed, ways, shots and queries",
            )


def spoken(episodes: dict[str, Any]) -> str:
    return f"{episodes['count']} {episodes['split']} ({episodes['hash']})"


def choose_metric(candidates: list[Candidate], wanted: str | None) -> str:
    """The metric to compare by: the wanted one, or one that all have."""
    shared = [name for name in candidates[0].values if all(name in each.values for each in candidates)]
    if wanted is not None and wanted not in shared:
        raise errors.UsageError(
            f"not all runs have measured {wanted}", "--metric", f"choose one of {', '.join(shared)}"
        )
    return wanted or next((name for name in shared if name != "loss"), "loss")


def labels(paths: list[Path]) -> list[str]:
    """What the runs are called: their folders, or the whole paths where two folders have one name."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def candidates_of(
    path: Path, run_label: str, result: dict[str, Any], mode: str, learner: str
) -> list[Candidate]:
    """Every stage of a run that was measured so; of one with copies every member."""
    stages, found, earlier = result["stages"], [], 0.0
    measured = [stage for stage, part in stages.items() if was_measured(part, mode, learner)]
    replicas = len(result.get("seeds", [0]))
    for stage, part in stages.items():
        label = f"{run_label}/{stage}" if len(stages) > 1 else run_label
        cost = cost_of(path, stage, part["step"], earlier, replicas * len(part.get("members", [0])))
        earlier += cost.seconds or 0.0
        if measured and stage not in measured:
            continue
        values = read_values(path, stage, result["split"], f"{mode}/{learner}")
        episodes = {"split": result["split"], **result["episodes"]}
        metrics = {name: values[name] for name in order_of(part, mode, learner) if name in values}
        for suffix, columns in members_of(metrics, part):
            each = Candidate(label + suffix, path, stage + suffix, columns, episodes, cost)
            found.append(each if replicas == 1 else over_replicas(each))
    return found


def members_of(
    columns: dict[str, np.ndarray], part: dict[str, Any]
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """(`[0]`, the values of the member) for every member of a stage; one with an empty name without copies."""
    if "members" not in part:
        return [("", columns)]
    return [
        (f"[{member}]", {name: column[..., member, :] for name, column in columns.items()})
        for member in range(len(part["members"]))
    ]


def over_replicas(each: Candidate) -> Candidate:
    """The mean over the replicas, of values [replica, episode]."""
    means = {name: column.mean(axis=0, dtype=np.float64) for name, column in each.values.items()}
    seeds = {name: column.mean(axis=1, dtype=np.float64) for name, column in each.values.items()}
    return each._replace(values=means, seeds=seeds)


def was_measured(part: dict[str, Any], mode: str, learner: str) -> bool:
    """Whether a stage has this learner in this mode."""
    place = part.get(mode, {})
    return learner in (place.get("inner_steps", {}) if learner.isdecimal() else place)


def order_of(part: dict[str, Any], mode: str, learner: str) -> list[str]:
    """The metrics in the order of the result, which is the family's own."""
    place = part[mode]
    return list(place["inner_steps"][learner] if learner.isdecimal() else place[learner])


def read_result(path: Path) -> dict[str, Any]:
    """result.json of a finished run."""
    directory.read_config(path)
    file = path / "result.json"
    try:
        result = json.loads(file.read_text("utf-8"))
        if not {"stages", "modes", "split", "episodes"} <= result.keys():
            raise ValueError("it is no result of metarun")
    except FileNotFoundError:
        raise errors.CheckpointError(
            "the run is not finished: it has no result yet", str(path), "go on with `metarun train --resume`"
        ) from None
    except (ValueError, RecursionError, AttributeError) as error:
        raise errors.DataError(
            f"the result cannot be read: {error}", str(file), "restore the file, or train again"
        ) from error
    return result


def read_values(path: Path, stage: str, split: str, variant: str) -> dict[str, np.ndarray]:
    """{metric: [episode]} of one variant of a stage."""
    file = path / "episodes" / f"{stage}-{split}.npz"
    try:
        with np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise errors.DataError(
            "the values of the episodes are missing or damaged", str(file), "restore the file, or train again"
        ) from error
    found = {
        name.removeprefix(f"{variant}/"): column
        for name, column in columns.items()
        if name.startswith(f"{variant}/")
    }
    if not found:
        known = sorted({name.rpartition("/")[0] for name in columns if "/" in name})
        raise errors.UsageError(
            f"{variant} was not measured in stage {stage}",
            str(path),
            f"choose --mode and --learner from {', '.join(known)}",
        )
    return found


def cost_of(path: Path, stage: str, step: int, earlier_seconds: float, learners: int) -> Cost:
    """What the stage took, all its learners together, from the manifest of the checkpoint that was measured."""
    try:
        saved = manifest.read(path / "checkpoints" / stage / str(step))
    except errors.CheckpointError:
        return Cost(step, None, None, None, None)
    numbers = {name: math.prod(leaf.shape) for name, leaf in saved.leaves.items()}
    width = {name: np.dtype(leaf.dtype).itemsize for name, leaf in saved.leaves.items()}
    trained = sum(count for name, count in numbers.items() if name.startswith("state.weights.trained"))
    seconds = saved.facts.get("seconds")
    state_bytes = sum(numbers[name] * width[name] for name in numbers)
    return Cost(step, seconds, earlier_seconds, trained // learners, state_bytes)


def draw(figure, comparison: dict[str, Any]) -> None:
    """Each learner with its interval, and beside it how far behind the best it is, by pairs."""
    ranking = comparison["ranking"][::-1]  # the best on top
    rows = range(len(ranking))
    left, right = figure.subplots(1, 2, sharey=True)
    left.errorbar(
        [each["mean"] for each in ranking], rows, xerr=[each["ci95"] for each in ranking], fmt="o", capsize=3
    )
    left.set(yticks=list(rows), yticklabels=[each["label"] for each in ranking], xlabel=comparison["metric"])
    left.set_title("mean and 95 % interval")
    means = [each["mean"] for each in ranking]
    if not comparison["higher_is_better"] and 0 < WIDE * min(means) < max(means) < math.inf:
        left.set_xscale("log")
    behind = [each["behind"] or {"mean": 0.0, "ci95": 0.0} for each in ranking]
    right.axvline(0.0, color="silver", linewidth=1)
    right.errorbar(
        [each["mean"] for each in behind],
        rows,
        xerr=[each["ci95"] for each in behind],
        fmt="o",
        capsize=3,
        color="tab:purple",
    )
    right.set(xlabel=f"{comparison['metric']} minus that of the best", title="paired difference")
