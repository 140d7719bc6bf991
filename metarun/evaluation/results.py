"""The values of one stage, laid out as a part of result.json."""

from typing import Any

import numpy as np

from metarun.evaluation.statistics import Values, summarise

Layout = dict[str, Any]


def lay_out(
    values: Values, names: tuple[str, ...] = (), groups: np.ndarray | None = None, crossed: bool = True
) -> Layout:
    """Return {mode: {"unadapted": ..., "adapted": ..., "inner_steps": {count: ...}, "groups": {name: ...}}}.

    The innermost are means and intervals. A group is there if it has two episodes or more; its value is {variant: ...}.

    Args:
      names: of the groups of tasks.
      groups: the place of each episode in `names`, [episode].
      crossed: whether replicas are seeds, so that intervals are over seeds and episodes; else they are trials.
    """
    layout: Layout = {}
    for variant, columns in summarise(values, crossed).items():
        mode, name = variant.split("/")
        section = layout.setdefault(mode, {})
        (section.setdefault("inner_steps", {}) if name.isdecimal() else section)[name] = columns
    if groups is None:
        return layout
    for index, name in enumerate(names):
        members = groups == index
        if members.sum() < 2:
            continue
        for mode, section in lay_out(take_episodes(values, members), crossed=crossed).items():
            section.pop("inner_steps", None)
            layout[mode].setdefault("groups", {})[name] = section
    return layout


def take_episodes(values: Values, chosen: np.ndarray) -> Values:
    """Return the values of some episodes."""
    return {
        variant: {name: column[..., chosen] for name, column in columns.items()}
        for variant, columns in values.items()
    }


def lay_out_members(
    values: Values,
    best: np.ndarray | None,
    names: tuple[str, ...] = (),
    groups: np.ndarray | None = None,
    crossed: bool = True,
) -> Layout:
    """Return the layout of the mean over the members, beside "members": [layout] and "best": {"member", ...}.

    Args:
      values: [member, episode] or [replica, member, episode].
      best: which member is the best, [] or [replica]; None: that is not known, and "best" is left out.
    """

    def lay_out_reduced(reduce) -> Layout:
        reduced = {
            variant: {name: reduce(column) for name, column in columns.items()}
            for variant, columns in values.items()
        }
        return lay_out(reduced, names, groups, crossed)

    count = next(iter(next(iter(values.values())).values())).shape[-2]
    layout = lay_out_reduced(lambda column: column.mean(axis=-2, dtype=np.float64))
    layout["members"] = [
        lay_out_reduced(lambda column, m=member: column[..., m, :]) for member in range(count)
    ]
    if best is not None:
        index = best[..., None, None]
        chosen = lay_out_reduced(lambda column: np.take_along_axis(column, index, axis=-2).squeeze(-2))
        layout["best"] = {"member": best.tolist(), **chosen}
    return layout


def flatten_values(values: Values) -> dict[str, np.ndarray]:
    """Return {variant/metric: [episode]}, or [replica, member, episode]: one by one, for pairwise comparison."""
    return {
        f"{variant}/{name}": column for variant, columns in values.items() for name, column in columns.items()
    }
