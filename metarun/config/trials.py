"""The trials of a run: where their numbers lie in a document, and the document of one of them.

A document holds the whole configuration as plain values, laid out as a file. The key of a number is as an override
writes it; for a run with one stage, `algorithm.inner_lr` and `stages.NAME.algorithm.inner_lr` mean the same.
"""

import copy
from collections.abc import Sequence
from typing import Any

from metarun.config.origin import choose
from metarun.config.schema import Trials

SECTIONS = ("algorithm", "model", "training")  # of a stage; its numbers lie in them


def name_number(path: str, stages: Sequence[str]) -> tuple[str, str]:
    """Return the stage that a key lies in, and the key within this stage.

    Raises:
      ValueError: the key lies in no stage.
    """
    head, _, rest = path.partition(".")
    stage = stages[0]
    if head == "stages":
        stage, _, inner = rest.partition(".")
        if stage.isdecimal() and int(stage) < len(stages):
            stage = stages[int(stage)]
        if stage not in stages:
            raise ValueError(f"{path} lies in no stage", choose(stage, stages))
    elif len(stages) > 1:
        raise ValueError(f"{path} does not say which stage it is of", f"write stages.{stages[-1]}.{path}")
    else:
        inner = path
    if inner.partition(".")[0] not in SECTIONS:
        raise ValueError(
            f"{path} cannot differ between the trials of one run",
            f"name a number of {', '.join(SECTIONS)}, or train a run for each value",
        )
    return stage, inner


def make_trial(document: dict[str, Any], trials: Trials, place: int) -> dict[str, Any]:
    """Return the document of the single run that is one of the trials.

    Args:
      document: of the run with the trials.
      place: of the trial, from 0.

    Raises:
      ValueError: a key names no number of a stage.
    """
    changed = {**document, "seed": trials.seeds[place], "replicas": 1, "trials": None}
    changed = copy.deepcopy(changed)
    for number in trials.numbers:
        set_number(changed, number.path, number.values[place])
    return changed


def set_number(document: dict[str, Any], path: str, value: float) -> None:
    """Set a number of a stage in a document, which has it already.

    Raises:
      ValueError: the key names no number of a stage.
    """
    listed = document.get("stages")
    stages = [stage["name"] for stage in listed] if listed else [document["algorithm"]["name"]]
    stage, inner = name_number(path, stages)
    section: Any = listed[stages.index(stage)] if listed else document
    *sections, key = inner.split(".")
    for name in sections:
        section = step_into(section, name, path)
    before = step_into(section, key, path)
    if isinstance(before, (bool, str, dict, list)):
        raise ValueError(
            f"{path} is no number, and cannot differ between trials", "train a run for each value"
        )
    # Values are kept as floats, and a whole number is one again where the option had one.
    whole = isinstance(before, int) and float(value).is_integer()
    section[int(key) if isinstance(section, list) else key] = int(value) if whole else value


def step_into(section: Any, key: str, path: str) -> Any:
    """Return what lies at a key of a section, or at an index of a list.

    Raises:
      ValueError: there is no such key.
    """
    if isinstance(section, list) and key.isdecimal() and int(key) < len(section):
        return section[int(key)]
    if isinstance(section, dict) and key in section:
        return section[key]
    names = list(section) if isinstance(section, dict) else []
    raise ValueError(f"there is no key {path}", choose(key, names))
