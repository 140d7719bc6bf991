"""Measuring all stages of a run, at its end or afterwards. Writes nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metarun import base, config, signals
from metarun.assembly import Tasks
from metarun.evaluation import episodes as frozen
from metarun.evaluation import results, simple_rules, variants
from metarun.evaluation.episodes import FrozenEpisodes
from metarun.evaluation.measurement import make_measurement
from metarun.evaluation.statistics import Values
from metarun.numbers import Numbers
from metarun.progress import Progress
from metarun.stages import Stage, Trained


class Evaluation(NamedTuple):
    """What an evaluation gave."""

    result: dict[str, Any]  # the content of result.json, without the run's path
    values: dict[str, dict[str, np.ndarray]]  # {stage: {variant/metric: [episode]}}
    baselines: simple_rules.Columns | None = None  # what rules without training reach, if the family has some


def evaluate(
    stages: Sequence[Stage],
    trained: Mapping[str, Trained],
    tasks: Tasks,
    settings: config.Evaluation,
    progress: Progress,
    check: Callable[[], None] = signals.ignore,
) -> Evaluation:
    """Measure the trained stages on the frozen episodes of the configured split.

    Args:
      check: is called before each stage, and again and again while one is measured; what it raises ends the evaluation.

    Raises:
      ConfigError: the split is empty, or a learner cannot tell as many classes apart.
    """
    episodes = frozen.freeze(tasks, settings)
    variants.refuse_steps_without_loop(stages, settings)
    groups = frozen.group_episodes(episodes)
    names = tasks.evaluated.groups.names if tasks.evaluated.groups else ()
    crossed = not (stages[0].trials and stages[0].trials.numbers)
    layouts, columns = {}, {}
    for stage in stages:
        if stage.name not in trained:
            continue
        check()
        progress.measuring(stage.name, settings.split, settings.episodes)
        weights = trained[stage.name].weights
        values = measure_stage(stage, weights, tasks, settings, episodes, check)
        if stage.settings.copies is None:
            layout = results.lay_out(values, names, groups, crossed)
        else:
            best = find_best_members(stage, weights, tasks, settings, values, check)
            layout = results.lay_out_members(values, best, names, groups, crossed)
        mean = variants.describe_mean(stage, tasks.evaluated.problem)
        unadapted = {} if mean is None else {"unadapted": mean}
        layouts[stage.name] = {"step": trained[stage.name].step, **unadapted, **layout}
        columns[stage.name] = results.flatten_values(values) | ({} if groups is None else {"group": groups})
    head = describe_measurement(stages, trained, tasks, settings, episodes)
    rules = simple_rules.measure(episodes)
    if rules is not None:
        head["baselines"] = simple_rules.summarise(rules)
    if says := (tasks.family.kept or {}).get("says"):
        head["data"] = list(says)
    return Evaluation(head | {"stages": layouts}, columns, rules)


def describe_measurement(
    stages: Sequence[Stage],
    trained: Mapping[str, Trained],
    tasks: Tasks,
    settings: config.Evaluation,
    episodes: FrozenEpisodes,
) -> dict[str, Any]:
    """Return what was measured, and on which episodes: the head of result.json."""
    head: dict[str, Any] = {
        "step": trained[list(trained)[-1]].step,
        "split": settings.split,
        "modes": list(settings.modes),
        "higher_is_better": list(tasks.evaluated.problem.objective.higher_is_better),
    }
    if "replica" in stages[0].axes:
        head["seeds"] = stages[0].list_seeds().tolist()
    if trials := stages[0].trials:
        head["trials"] = [
            {"seed": seed, **{number.path: number.values[trial] for number in trials.numbers}}
            for trial, seed in enumerate(trials.seeds)
        ]
        diverged = trained[list(trained)[-1]].diverged
        head["diverged"] = [{"trial": trial, **where._asdict()} for trial, where in sorted(diverged.items())]
    head["episodes"] = {
        "count": settings.episodes,
        "hash": frozen.hash_episodes(episodes, tasks.recipe),
    }
    return head


def measure_stage(
    stage: Stage,
    weights: base.Weights,
    tasks: Tasks,
    settings: config.Evaluation,
    episodes: FrozenEpisodes,
    check: Callable[[], None] = signals.ignore,
) -> Values:
    """Measure every variant of a stage: values [replica, member, episode].

    Args:
      check: as of `evaluate`.

    Raises:
      ConfigError: the learner cannot tell as many classes apart.
    """

    def choose(values: Numbers) -> dict[str, variants.Variant]:
        problem = tasks.evaluated.problem
        return variants.choose_variants(
            stage.take_numbers(values), problem, settings.modes, settings.inner_steps
        )

    variants.check_ways(stage, tasks, settings.modes[0], weights)
    measure = make_measurement(
        choose({}),
        episodes,
        stage.at_once,
        len(stage.axes),
        stage.list_numbers(),
        choose,
        stage.differing,
        check,
    )
    return measure(weights)


def find_best_members(
    stage: Stage,
    weights: base.Weights,
    tasks: Tasks,
    settings: config.Evaluation,
    values: Values,
    check: Callable[[], None] = signals.ignore,
) -> np.ndarray | None:
    """Return which member is the best on the validation split, [] or [replica]; None: there is no such split.

    Args:
      values: on the configured split, which is not measured again if it is the validation split.
      check: as of `evaluate`.
    """
    if "validation" not in tasks.data:
        return None
    if settings.split != "validation":
        validation = frozen.freeze(tasks, settings, "validation")
        values = measure_stage(stage, weights, tasks, settings, validation, check)
    objective = tasks.evaluated.problem.objective
    column = values[f"{settings.modes[0]}/adapted"][objective.selection]
    means = column.mean(axis=-1, dtype=np.float64)
    sign = -1 if objective.selection in objective.higher_is_better else 1
    return np.asarray(np.argmin(np.where(np.isnan(means), np.inf, sign * means), axis=-1))
