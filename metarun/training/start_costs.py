"""What the weights that a run has from other runs had cost there: each stage of each run counts once.

A record of sources.json has the `cost` of its weights in all, and in `parts` what it is the sum of: {RUN/STAGE: what
this stage alone had cost}. For a stage with `init_from` these are the stage there and all that it stood on; for one
with `taken_from`, which has the cost of its training itself, what its own start had cost in further runs. Records of
older versions have no parts: then a cost in all is one part.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metarun.config import foreign_stages
from metarun.runs import directory, regular_files, stage_reference

ADDED = ("steps", "seconds", "flops", "parameters", "tasks", "examples")  # what a total adds up

Cost = dict[str, Any]  # the numbers of ADDED, and "at_least"; {}: none is known
Parts = dict[str, Cost]  # by RUN/STAGE


class Inherited(NamedTuple):
    """What a stage has from other runs."""

    place: str | None  # RUN/STAGE of which it is a copy; None: it was trained here
    parts: Parts  # what its weights had begun with, or begin with here


def read_inherited(sources: Mapping[str, Any]) -> dict[str, Inherited]:
    """Return what the stages of a run inherit, from the records of its sources, by the name of the stage."""
    records = sources.get("stages", {})
    return {name: Inherited(find_place(record), find_parts(record)) for name, record in records.items()}


def find_place(record: Mapping[str, Any]) -> str | None:
    """Return RUN/STAGE of which a taken stage is a copy; None: the stage was trained here."""
    return None if record["key"] == foreign_stages.INIT else name_place(record["run"], record["stage"])


def name_place(run: Path | str, stage: str) -> str:
    """Return the name of a stage of a run, under which its cost counts once."""
    return f"{run}/{stage}"


def find_parts(record: Mapping[str, Any]) -> Parts:
    """Return what the weights of a stage, or of the stage that it is taken from, had begun with.

    Args:
      record: of the stage in sources.json.

    Returns:
      {} if it did not start from another run; a part without numbers if the cost is not known.
    """
    if record.get("parts") is not None:
        return dict(record["parts"])
    place = name_place(record["run"], record["stage"])
    if record["key"] == foreign_stages.INIT:
        return {place: record.get("cost") or {}}
    start = record.get("start_cost")  # of an older version
    return {} if start is None else {f"{place}/0": start}


def collect(owns: Mapping[str, Cost], inherited: Mapping[str, Inherited]) -> list[Cost]:
    """Return what a total adds up: each stage of each run once, with the most steps that somebody says of it.

    The parameters of weights that a stage starts from are its own, and count there alone.

    Args:
      owns: what the stage and those that it stands on have cost themselves, by name.
      inherited: what the stages of the run have from others, by name.
    """
    sections: Parts = {}
    for name, own in owns.items():
        place = inherited[name].place if name in inherited else None
        add(sections, place or name, own)
    for name in owns:
        for place, cost in (inherited[name].parts if name in inherited else {}).items():
            held = sections.get(place, {"parameters": 0})
            add(sections, place, {**cost, "parameters": held.get("parameters")})
    return list(sections.values())


def add(sections: Parts, place: str, cost: Cost) -> None:
    """Put a cost in its place, unless one of as many steps is there. A number that is unknown there stays unknown."""
    if place not in sections:
        sections[place] = cost
        return
    held = sections[place]
    steps, least = cost.get("steps"), held.get("steps")
    if steps is not None and least is not None and steps > least:
        unknown = {name: None for name in ADDED if held.get(name) is None}
        sections[place] = cost | unknown


def list_parts(run: Path, stage: str | None, step: int | None = None) -> Parts | None:
    """Return what a stage of a finished run and all that it stands on have cost; None: that is not recorded.

    Args:
      stage: its name; None: the last one.
      step: up to which the stage itself is counted, of the steps that it took; None: all of them.

    Raises:
      DataError: sources.json of the run is damaged.
    """
    inherited = read_inherited(stage_reference.read_records(run))
    parts: Parts = {}
    try:
        costs = read_costs(run)
        last = list(costs)[-1] if stage is None else stage
        for name in (last, *costs[last]["stands_on"]):
            own = costs[name]["own"]
            source = inherited.get(name, Inherited(None, {}))
            cost = {key: own[key] for key in (*ADDED, "at_least") if key in own}
            place = source.place or name_place(run, name)
            add(parts, place, cut(cost, own, step) if name == last else cost)
            for further, start in source.parts.items():
                add(parts, further, start)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return parts


def read_total(run: Path, stage: str | None, step: int | None = None) -> Cost | None:
    """Return what a stage of a finished run has cost in all, see `list_parts`; None: that is not recorded."""
    try:
        costs = read_costs(run)
        cost = costs[list(costs)[-1] if stage is None else stage]
        return cut(dict(cost["total"]), dict(cost["own"]), step)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def read_costs(run: Path) -> dict[str, Any]:
    """Return the costs of the stages of a finished run, by name."""
    costs: dict[str, Any] = regular_files.read_sealed(run / directory.RESULT)["costs"]
    return costs


def cut(cost: Cost, own: Cost, step: int | None) -> Cost:
    """Return a cost without the share of a stage's own cost that came after a step."""
    if step is None or not own["steps"] or step >= own["steps"]:
        return cost
    rest = 1 - step / own["steps"]
    grown = [name for name in ADDED if name != "parameters" and None not in (own[name], cost[name])]
    return cost | {name: cost[name] - rest * own[name] for name in grown}
