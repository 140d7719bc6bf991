"""What the page says about several runs, beside one another."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from metarun import errors
from metarun.evaluation import wording
from metarun.evaluation.statistics import choose_shown_metric
from metarun.finished import comparison
from metarun.finished.costs import NOT_RECORDED, Budgets, describe_budgets
from metarun.reports import learning_curves
from metarun.reports.charts import Chart, Curves, Dot, Dots, choose_color, to_number
from metarun.reports.config_table import compare_configs
from metarun.reports.outcome_tables import Table, format_interval
from metarun.reports.run_record import RunRecord

COSTS = ("seconds", "parameters", "FLOPs of training", "FLOPs of one adaptation")  # columns of the ranking
RANKED = 40  # rows of a ranking in a plot; the table has all of them


class Ranking(NamedTuple):
    """Learners that were measured on the same episodes."""

    table: Table
    note: str  # what its numbers mean
    chart: Dots


class Comparison(NamedTuple):
    """What the template needs to know of the runs together."""

    rankings: list[Ranking]
    notes: list[str]  # which runs stand in no ranking, and why
    charts: dict[str, Chart]  # {the name of its place: rankings, validation, inner steps}
    differences: Table  # keys of the configs


def make_comparison(records: Sequence[RunRecord]) -> Comparison:
    """Return what several runs have to say together. Runs are ranked with those of the same episodes."""
    finished = [record for record in records if record.result]
    groups = group(finished, identify_episodes)
    families = group(records, lambda record: repr(record.config.get("task", record.name)))
    rankings: list[Ranking] = []
    notes: list[str] = []
    for members in groups:
        try:
            rankings.append(rank(members))
        except errors.MetarunError as error:
            unranked = ", ".join(record.name for record in members)
            notes.append(f"Not ranked: {unranked}, as {error.what}.")
    if unfinished := [record.name for record in records if not record.result]:
        notes.append(f"Not ranked: {', '.join(unfinished)}, without a usable result.")
    if len(groups) > 1:
        notes.append("Runs that were measured on different episodes cannot be ranked together.")
    charts: dict[str, Chart] = {
        f"together-ranking-{number}": ranking.chart for number, ranking in enumerate(rankings)
    }
    curves = [*map(draw_validation, families), *map(draw_steps, groups)]
    charts |= {f"together-{number}": chart for number, chart in enumerate(curves) if chart is not None}
    names = [record.name for record in records]
    return Comparison(rankings, notes, charts, compare_configs(names, [record.config for record in records]))


def group(records: Sequence[RunRecord], tell: Callable[[RunRecord], str]) -> list[list[RunRecord]]:
    """Return the runs of which the same is told, together."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(tell(record), []).append(record)
    return list(groups.values())


def identify_episodes(record: RunRecord) -> str:
    """Return what identifies the episodes that a finished run was measured on."""
    result = record.result or {}
    return f"{result.get('split')} {result.get('episodes')}"


def rank(members: Sequence[RunRecord]) -> Ranking:
    """Return the ranking of finished runs.

    Raises:
      MetarunError: they cannot be compared.
    """
    compared = comparison.compare([record.path for record in members], comparison.Choice())
    return Ranking(tabulate_ranking(compared), describe_ranking(compared), draw_ranking(compared))


def tabulate_ranking(compared: dict[str, Any]) -> Table:
    """Return a line for each learner, best first."""
    rows = [
        [
            str(number),
            entry["label"],
            format_interval(entry),
            format_interval(entry["behind"]),
            "" if entry["cost"]["seconds"] is None else f"{entry['cost']['seconds']:,.1f}",
            "" if entry["cost"]["parameters"] is None else f"{entry['cost']['parameters']:,}",
            *(format_flops(entry["cost"], key) for key in ("flops", "adaptation_flops")),
        ]
        for number, entry in enumerate(compared["ranking"], start=1)
    ]
    if reached := compared["ceiling"]:
        scores = [format_interval(reached), format_interval(reached["behind"])]
        rows.append(["", wording.BEST_POSSIBLE, *scores, *[""] * len(COSTS)])
    return Table(["", "learner", compared["metric"], "minus the best", *COSTS], rows)


def format_flops(cost: dict[str, Any], key: str) -> str:
    """Return FLOPs with three digits; they are not recorded for a run of an older version."""
    if cost[key] is None:
        return NOT_RECORDED
    return f"{'≥ ' * cost['flops_at_least']}{cost[key]:.3g}"


def describe_ranking(compared: dict[str, Any]) -> str:
    """Return what the numbers of the ranking are."""
    episodes = compared["episodes"]
    better = "higher" if compared["higher_is_better"] else "lower"
    left_out = compared["left_out"]
    seeded = any("seeds" in entry for entry in compared["ranking"])
    over = "seeds and episodes, in brackets over the seeds alone" if seeded else "episodes"
    labels = [entry["label"] for entry in compared["ranking"]]
    unequal = describe_budgets(Budgets(**compared["budgets"]), labels)
    return (
        f"{compared['metric']}: {better} is better; {compared['mode']}, {compared['learner']}; "
        f"{episodes['count']} {episodes['split']} episodes ({episodes['hash']}), mean ± 95 % interval over {over}, "
        "differences by pairs. A difference whose interval has zero in it tells nothing apart."
        + "".join(f" {note[0].upper()}{note[1:]}." for note in compared["notes"])
        + (f" Left out, as it has no such learner: {', '.join(left_out)}." if left_out else "")
        + (f" {unequal[0].upper()}{unequal[1:]}." if unequal else "")
    )


def draw_ranking(compared: dict[str, Any]) -> Dots:
    """Return the leaders with their intervals."""
    dots = [
        Dot(entry["label"], compared["metric"], to_number(entry["mean"]), to_number(entry["ci95"]))
        for entry in compared["ranking"][:RANKED]
    ]
    return Dots("ranking, mean and 95 % interval", compared["metric"], dots)


def draw_validation(records: Sequence[RunRecord]) -> Curves | None:
    """Return the validation curve of every run's last stage, in a metric that all of them have; None if none has."""
    rows = {
        record.name: record.rows.where(split="validation", stage=record.stage_names[-1])
        for record in records
        if record.stage_names
    }
    rows = {name: own for name, own in rows.items() if len(own)}
    metrics = [learning_curves.choose_metrics(own) for own in rows.values()]
    shared = [name for name in metrics[0] if all(name in others for others in metrics)] if metrics else []
    if not shared:
        return None
    metric = choose_shown_metric(shared)
    lines = [
        learning_curves.make_validation_line(own, metric, name, choose_color(number))
        for number, (name, own) in enumerate(rows.items())
    ]
    lines = [line for line in lines if np.isfinite(line.means).any()]
    return Curves("validation, adapted, last stage", "outer step", metric, lines) if lines else None


def draw_steps(records: Sequence[RunRecord]) -> Curves | None:
    """Return the metric of every run's last stage after each number of inner steps; None if none was measured."""
    sections = {}
    for record in records:
        if record.result and record.result["stages"]:
            layout = list(record.result["stages"].values())[-1]
            sections[record.name] = layout.get(record.result["modes"][0], {})
    return learning_curves.make_steps_chart(sections)
