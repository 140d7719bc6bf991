"""result.json as lines of tables, for people."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from metarun.evaluation import wording
from metarun.evaluation.statistics import choose_shown_metric

Columns = dict[str, dict[str, Any]]  # {metric: {"mean", "ci95", "seeds"}}


class Table(NamedTuple):
    """A table of text."""

    header: list[str]
    rows: list[list[str]]


def list_sections(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return {(stage, mode): what was measured}; members and the best one are stages of their own."""
    sections: dict[tuple[str, str], dict[str, Any]] = {}
    for stage, layout in result["stages"].items():
        learners = {stage: layout}
        learners |= {f"{stage}[{number}]": member for number, member in enumerate(layout.get("members", []))}
        if "best" in layout:
            learners[f"{stage}[best]"] = layout["best"]
        for name, learner in learners.items():
            sections |= {(name, mode): learner[mode] for mode in result["modes"] if mode in learner}
    return sections


def list_learners(section: dict[str, Any]) -> Iterable[tuple[str, Columns]]:
    """Yield (learner, its metrics): unadapted, adapted, and after every number of inner steps."""
    for learner, columns in section.items():
        if learner == "inner_steps":
            for count, measured in columns.items():
                yield f"after {count} inner step{'s' * (count != '1')}", measured
        elif learner != "groups":
            yield learner, columns


def make_outcome_table(result: dict[str, Any], ceiling: Columns | None = None) -> Table:
    """Return a line for each stage, mode and learner.

    Args:
      ceiling: {metric: {"mean", "ci95"}} of the best possible rule, for a line of its own; None: it is not known.
    """
    lines = [
        ([stage, mode, learner], columns)
        for (stage, mode), section in list_sections(result).items()
        for learner, columns in list_learners(section)
    ]
    if ceiling:
        lines.append(([wording.BEST_POSSIBLE, "", ""], ceiling))
    return lay_out(["stage", "mode", "learner"], lines)


def make_groups_table(result: dict[str, Any]) -> Table:
    """Return a line for each stage, mode, group of tasks and learner; no lines if there are no groups."""
    lines = [
        ([stage, mode, group, learner], columns)
        for (stage, mode), section in list_sections(result).items()
        for group, learners in section.get("groups", {}).items()
        for learner, columns in learners.items()
    ]
    return lay_out(["stage", "mode", "task", "learner"], lines)


def lay_out(head: list[str], lines: list[tuple[list[str], Columns]]) -> Table:
    """Return a table with a column for each metric that some line has."""
    metrics = list(dict.fromkeys(name for _, columns in lines for name in columns))
    rows = [[*cells, *(format_interval(columns.get(name)) for name in metrics)] for cells, columns in lines]
    return Table([*head, *metrics], rows)


def format_interval(interval: dict[str, Any] | None) -> str:
    """Return `0.9873 ± 0.0031`, and with several seeds `0.9873 ± 0.0031 (± 0.0102)`; "" for nothing."""
    if not interval or "mean" not in interval:
        return ""
    text = f"{format_value(interval['mean'])} ± {format_value(interval.get('ci95'))}"
    return text + (f" (± {format_value(interval['seeds']['ci95'])})" if "seeds" in interval else "")


def format_value(value: Any) -> str:
    """Return `0.9873`; a number that is not finite stands in the file as its name."""
    return f"{value:.4f}" if isinstance(value, int | float) else str(value)


def describe_headline(result: dict[str, Any]) -> str:
    """Return what came out, in one sentence: the last stage in the first mode; "" if that is not there."""
    stage = list(result["stages"])[-1] if result["stages"] else ""
    section = result["stages"].get(stage, {}).get(result["modes"][0], {})
    columns = section.get("adapted", {})
    metric = choose_shown_metric(columns)
    after = format_interval(columns.get(metric))
    if not after:
        return ""
    before = format_interval(section.get("unadapted", {}).get(metric))
    episodes = result["episodes"]
    text = f"{metric} {after} after adaptation"
    text += f", {before} before" if before else ""
    better = "higher" if metric in result["higher_is_better"] else "lower"
    seeds = len(columns[metric].get("seeds", {}).get("values", ()))
    trials = len(result.get("trials", ()))
    over = wording.describe_spread(seeds, trials, crossed="episodes" in columns[metric])
    return (
        f"{text}: the mean over {episodes.get('count')} {result['split']} episodes with its 95 % interval {over}; "
        f"{better} is better (stage {stage}, {result['modes'][0]})."
    )
