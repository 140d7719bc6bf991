"""What a sweep was asked for, by the command line and the `sweep:` section of the file, checked at once."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from metarun import config
from metarun.config import base_file
from metarun.config.foreign_stages import Locate
from metarun.config.origin import Origin, choose, make_error
from metarun.config.run_file import SWEEP as SECTION
from metarun.errors import UsageError
from metarun.runs import stage_reference
from metarun.sweeps import axes as grammar
from metarun.sweeps.axes import Axis

Search = Literal["grid", "random", "tpe"]
Setting = dict[str, Any]  # {key: value}, one value for each axis
OPTIONS = ("trials", "search", "halve")  # keys of the section that are no keys of a config
SEED = "seed"
# The ends of the keys that halving divides.
BUDGETS = ("training.steps", "training.seconds", "training.flops")
# What is measured and where must be the same for all settings, else they cannot be compared.
FIXED = ("evaluation", "checkpoint", "accelerator", "replicas", "trials", "sinks", "controls")


class Request(NamedTuple):
    """A sweep as it was asked for."""

    file: Path
    overrides: tuple[str, ...]  # single values, the same for all settings
    axes: tuple[Axis, ...]  # without the seeds, which are not searched
    seeds: tuple[int, ...]  # that every setting is trained with
    search: Search
    trials: int | None  # settings that are tried; None: all of the grid
    halve: int | None  # one of so many goes on at each rung; None: all train to the end
    base: config.RunConfig  # what all settings begin from
    # Finds other runs that the file names. The same name is the same run for all settings, also if a run is begun
    # meanwhile.
    locate: Locate = stage_reference.find_stage

    def load(self, setting: Mapping[str, Any], extra: Iterable[str] = ()) -> config.RunConfig:
        """Return the config of a setting.

        Raises:
          ConfigError: the setting is impossible.
        """
        chosen = [f"{key}={grammar.format_value(value)}" for key, value in setting.items()]
        return config.load(self.file, [*self.overrides, *chosen, *extra], self.locate)

    def list_grid(self) -> list[Setting]:
        """Return all settings of the grid; the last axis changes fastest."""
        values = itertools.product(*(axis.values for axis in self.axes))
        return [dict(zip((axis.key for axis in self.axes), place, strict=True)) for place in values]

    def describe(self) -> dict[str, Any]:
        """Return all that decides the ranking, ready for JSON: two equal descriptions are the same sweep."""
        return {
            "config": config.document(self.base),
            "axes": {axis.key: {"scale": axis.scale, "values": list(axis.values)} for axis in self.axes},
            "seeds": list(self.seeds),
            "search": self.search,
            "trials": self.trials,
            "halve": self.halve,
        }

    def hash(self) -> str:
        """Return eight hexadecimal digits of the description."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:8]


def read(
    file: Path,
    arguments: Iterable[str],
    search: str | None = None,
    trials: int | None = None,
    halve: int | None = None,
) -> Request:
    """Return what the file and the command line ask for; the command line goes before the `sweep:` section.

    Args:
      arguments: `KEY=VALUE`, single values and axes mixed.

    Raises:
      ConfigError: an axis cannot be read, or a setting is impossible.
      UsageError: there is nothing to try, or the options do not fit each other.
    """
    section, origin = read_section(file)
    overrides, axes = split_arguments(arguments)
    named = {argument.partition("=")[0] for argument in overrides}
    for key, value in section.items():
        if key in OPTIONS or key in axes or key in named:
            continue
        axis = read_axis(key, value, origin)
        if axis is None:
            overrides.insert(0, f"{key}={grammar.format_value(value)}")
        else:
            axes[key] = axis
    chosen = search or section.get("search", "grid")
    if chosen not in get_args(Search):
        where = "--search" if search else origin.locate(f"{SECTION}.search")
        raise make_error(f"there is no search {chosen}", where, choose(chosen, get_args(Search)))
    trials = trials if trials is not None else read_count(section, "trials", 1, origin)
    halve = halve if halve is not None else read_count(section, "halve", 2, origin)
    searched = tuple(axis for key, axis in axes.items() if key != SEED)
    locate = functools.cache(stage_reference.find_stage)
    base = config.load(file, overrides, locate)
    seeds = tuple(range(base.seed, base.seed + base.replicas))
    if SEED in axes:
        refuse_both(base, axes[SEED])
        seeds = axes[SEED].values
    request = Request(
        file, tuple(overrides), searched, seeds, cast(Search, chosen), trials, halve, base, locate
    )
    check(request)
    return request


def read_section(file: Path) -> tuple[dict[str, Any], Origin]:
    """Return the `sweep:` section of a file, which may be empty, and where its values stand.

    Raises:
      ConfigError: it is no section.
    """
    parsed = base_file.read(file)
    section, origin = parsed.value.get(SECTION) or {}, Origin(str(file), parsed.places)
    if not isinstance(section, dict):
        raise origin.make_error(
            SECTION, "sweep is no section", "write sweep: {KEY: log(1e-4,1e-2,8), seed: 0..2}"
        )
    return section, origin


def read_axis(key: str, value: Any, origin: Origin) -> Axis | None:
    """Return the axis that a value of the section is; None: it is a single value."""
    where = origin.locate(f"{SECTION}.{key}")
    if isinstance(value, list):
        return grammar.make_choice(key, value, where)
    return grammar.parse(key, value, where) if isinstance(value, str) else None


def read_count(section: Mapping[str, Any], key: str, least: int, origin: Origin) -> int | None:
    """Return a whole number of the section; None: it is not there."""
    value = section.get(key)
    if value is not None and (type(value) is not int or value < least):
        raise origin.make_error(
            f"{SECTION}.{key}", f"{key} cannot be {value}", f"give a whole number from {least} on"
        )
    return value


def split_arguments(arguments: Iterable[str]) -> tuple[list[str], dict[str, Axis]]:
    """Return the overrides and the axes, by their keys."""
    overrides: list[str] = []
    axes: dict[str, Axis] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        axis = grammar.parse(key, text, f"override {argument}") if equals else None
        if axis is None:
            overrides.append(argument)
            axes.pop(key, None)
        else:
            axes[key] = axis
    return overrides, axes


def refuse_both(base: config.RunConfig, seeds: Axis) -> None:
    """Refuse seeds beside replicas, and seeds that are none."""
    if base.replicas > 1:
        what = f"there are both replicas={base.replicas} and seeds to try"
        raise make_error(what, seeds.where, "leave one of them out: replicas are the seeds from `seed` on")
    if not seeds.is_whole:
        raise make_error("a seed is a whole number", seeds.where, "write seed=0..2, or seed=0,7")


def check(request: Request) -> None:
    """Refuse what cannot be swept; see `read`."""
    for axis in request.axes:
        head = axis.key.partition(".")[0]
        if head in FIXED:
            what = f"{axis.key} cannot differ between the settings of a sweep"
            raise make_error(what, axis.where, f"give {head} one value, so that all are measured alike")
        if request.halve and axis.key.endswith(BUDGETS):
            what = "halving sets the steps, so they cannot be tried as well"
            raise make_error(what, axis.where, f"leave --halve out, or give {axis.key} one value")
    if not request.axes and len(request.seeds) < 2:
        remedy = "give a key several values, such as training.optimizer.learning_rate=log(1e-4,1e-2,8)"
        raise UsageError("there is nothing to try", "metarun sweep", remedy)
    if request.search == "grid" and request.trials is not None:
        remedy = "leave --trials out, or add --search random or --search tpe"
        raise UsageError("a grid tries all its settings", "--trials", remedy)
    if request.search != "grid" and (request.trials is None or not request.axes):
        what = f"the search {request.search} needs --trials, and a key to search"
        raise UsageError(what, "metarun sweep", "add --trials 20, the number of settings that are tried")
    check_settings(request)


def check_settings(request: Request) -> None:
    """Load a config for each value of each axis; values together are checked when their programs are planned."""
    for seed in {request.seeds[0], request.seeds[-1]}:
        request.load({SEED: seed})
    for axis in request.axes:
        values = axis.values if axis.scale == "choice" else (axis.values[0], axis.values[-1])
        for value in values:
            request.load({axis.key: value})
