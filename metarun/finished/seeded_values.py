"""Values of a run by seed: which replica has which seed, and which replicas differ in their seeds alone."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarun import errors
from metarun.finished.run_names import format_keys, read_flat_config

Columns = dict[str, np.ndarray]  # {metric: values}


class Setting(NamedTuple):
    """Replicas of a run that differ in their seeds alone: all of them, or the trials with the same numbers."""

    label: str  # `inner_lr=0.1`; "" if the run has one setting
    places: tuple[int, ...]  # of the replicas
    seeds: tuple[int, ...]  # of the replicas; empty: they are not known
    diverged: tuple[tuple[int, str], ...] = ()  # replicas that diverged, each with the stage in which it did


def list_settings(run: Path, result: dict[str, Any]) -> list[Setting]:
    """Return the settings of a run: one, unless its replicas are trials that differ in numbers.

    Args:
      result: the content of its result.json.
    """
    seeds = result.get("seeds")
    if seeds is None:
        return [Setting("", (0,), read_seed(run))]
    trials = [
        {key: value for key, value in trial.items() if key != "seed"} for trial in result.get("trials", ())
    ]
    labels = [format_keys(trial, len(trial)) for trial in trials] or [""] * len(seeds)
    groups: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        groups.setdefault(label, []).append(place)
    lost = tuple((entry["trial"], entry["stage"]) for entry in result.get("diverged", ()))
    return [
        Setting(label, tuple(places), tuple(seeds[place] for place in places), lost)
        for label, places in groups.items()
    ]


def read_seed(run: Path) -> tuple[int, ...]:
    """Return the seed of a run without replicas; () if its config does not tell it."""
    try:
        seed = read_flat_config(run).get("seed")
    except errors.MetarunError:
        return ()
    return (seed,) if isinstance(seed, int) else ()


def take_seeds(
    columns: Columns, setting: Setting, replicas: int, stages: list[str]
) -> tuple[Columns, tuple[int, ...]]:
    """Return the values {metric: [seed, episode]} of one setting of one stage, and their seeds.

    A trial that has diverged is NaN, because its values are those of the step before. A file of an older version that
    has the mean over the replicas alone gives one row, whose seeds are not known.

    Args:
      columns: {metric: [replica, episode]}, or [episode] of a run without replicas.
      stages: the names of the stages up to this one.
    """
    if any(column.ndim == 1 for column in columns.values()):
        rows = {name: column.reshape(1, column.shape[-1]) for name, column in columns.items()}
        return rows, setting.seeds if replicas == 1 else ()
    diverged = {trial for trial, stage in setting.diverged if stage in stages}
    lost = [place in diverged for place in setting.places]
    rows = {name: column[list(setting.places)].astype(np.float64) for name, column in columns.items()}
    for column in rows.values():
        column[np.array(lost, bool)] = np.nan
    return rows, setting.seeds
