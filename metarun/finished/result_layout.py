"""What result.json of a run must look like, so that whoever reads it may rely on its types.

Checked is what metarun reads itself. A result may say more, such as one of a later version.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

NUMBER_WORDS = ("nan", "inf", "-inf")  # how JSON has numbers that are not finite; see `strict_json`

TOO_LARGE = 1e300  # no number of a run; a whole number of JSON may be larger than a float can be


def check(result: Mapping[str, Any]) -> None:
    """Check the whole result.

    Raises:
      ValueError: the first thing that is missing or of another type; its place is named.
    """
    _check_all(result, "", split=_is_text, modes=_is_texts, stages=_is_object, episodes=_is_object)
    _check_all(result["episodes"], "episodes", count=_is_natural, hash=_is_text)
    if not (result["modes"] and result["stages"] and result["episodes"]["count"]):
        raise ValueError("it has no modes, no stages or no episodes")
    _check_some(
        result, "", higher_is_better=_is_texts, seeds=_is_naturals, trials=_is_list, diverged=_is_list
    )
    for place, trial in enumerate(result.get("trials", [])):
        _refuse_unless(_is_object(trial), f"trials.{place}")
    for place, lost in enumerate(result.get("diverged", [])):
        _check_all(lost, f"diverged.{place}", trial=_is_natural, stage=_is_text)
    for name in (result["split"], *result["stages"]):  # parts of the names of files
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"{name[:40]!r} cannot be a split or a stage")
    for name, layout in result["stages"].items():
        _check_stage(layout, f"stages.{name}", result["modes"])
    for name, cost in _get_object(result, "costs").items():
        _check_cost(cost, f"costs.{name}")


def _check_stage(layout: Any, place: str, modes: list[str]) -> None:
    _check_all(layout, place, step=_is_natural)
    _check_some(layout, place, members=_is_list, best=_is_object)
    learners = {place: layout, f"{place}.best": layout.get("best", {})}
    learners |= {
        f"{place}.members.{number}": member for number, member in enumerate(layout.get("members", []))
    }
    for name, learner in learners.items():
        _refuse_unless(_is_object(learner), name)
        for mode in modes:
            if mode in learner:
                _check_section(learner[mode], f"{name}.{mode}")


def _check_section(section: Any, place: str) -> None:
    """Check {"adapted", "unadapted", "inner_steps": {count: ...}, "groups": {name: {...}}} of one mode."""
    _refuse_unless(_is_object(section), place)
    for name, entry in section.items():
        inner = f"{place}.{name}"
        _refuse_unless(_is_object(entry), inner)
        if name == "groups":
            for group, learners in entry.items():
                _check_section(learners, f"{inner}.{group}")
        elif name == "inner_steps":
            for count, columns in entry.items():
                _refuse_unless(count.isdecimal(), f"{inner}.{count}")
                _check_columns(columns, f"{inner}.{count}")
        else:
            _check_columns(entry, inner)


def _check_columns(columns: Any, place: str) -> None:
    """Check {metric: {"mean", "ci95", "seeds": {"ci95", "values"}, "episodes": {"ci95"}}}."""
    _refuse_unless(_is_object(columns), place)
    for metric, interval in columns.items():
        inner = f"{place}.{metric}"
        _check_all(interval, inner, mean=_is_number, ci95=_is_number)
        _check_some(interval, inner, seeds=_is_object, episodes=_is_object, not_finite=_is_natural)
        if "seeds" in interval:
            _check_all(interval["seeds"], f"{inner}.seeds", ci95=_is_number, values=_is_numbers)
        if "episodes" in interval:
            _check_all(interval["episodes"], f"{inner}.episodes", ci95=_is_number)


def _check_cost(cost: Any, place: str) -> None:
    """Check {"own", "total", "adaptation", "prediction", "replicas"} of one stage."""
    parts = {"own": _is_object, "total": _is_object, "adaptation": _is_object, "prediction": _is_object}
    _check_all(cost, place, **parts, replicas=_is_natural)
    known = {"seconds": _may_be_number, "flops": _may_be_number, "parameters": _may_be_number}
    _check_all(cost["own"], f"{place}.own", **known, steps=_may_be_number, ended_by=_may_be_text)
    _check_all(cost["total"], f"{place}.total", **known)
    for name in ("adaptation", "prediction"):
        _check_all(cost[name], f"{place}.{name}", flops=_may_be_number)
    if cost["own"]["ended_by"] == "seconds" and None in (cost["own"]["steps"], cost["own"]["seconds"]):
        raise ValueError(f"{place}.own.ended_by is seconds, and steps or seconds is null")
    for name in known:
        if cost["own"][name] is None and cost["total"][name] is not None:
            raise ValueError(f"{place}.own.{name} is null, and the total is not")


def _check_all(content: Any, place: str, **checks: Callable[[Any], bool]) -> None:
    """Check values that must be there."""
    _refuse_unless(_is_object(content), place or "it")
    for key, is_right in checks.items():
        inner = f"{place}.{key}".lstrip(".")
        if key not in content:
            raise ValueError(f"{inner} is missing")
        _refuse_unless(is_right(content[key]), inner)


def _check_some(content: Mapping[str, Any], place: str, **checks: Callable[[Any], bool]) -> None:
    """Check values that may be there."""
    _check_all(content, place, **{key: is_right for key, is_right in checks.items() if key in content})


def _get_object(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key, {})
    _refuse_unless(_is_object(value), key)
    return value


def _refuse_unless(is_right: bool, place: str) -> None:
    if not is_right:
        raise ValueError(f"{place} is not of the type that it should be")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < TOO_LARGE


def _is_naturals(value: Any) -> bool:
    return isinstance(value, list) and all(_is_natural(item) for item in value)


def _is_number(value: Any) -> bool:
    return _is_finite(value) or value in NUMBER_WORDS


def _may_be_number(value: Any) -> bool:
    return value is None or _is_finite(value)


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and -TOO_LARGE < value < TOO_LARGE


def _may_be_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(_is_number(item) for item in value)
