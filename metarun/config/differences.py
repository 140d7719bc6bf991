"""The keys in which two configs differ, and those that may differ on resume and in an evaluation of a finished run."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from metarun import config, errors, plugins
from metarun.config.selection import Selection

# Sections that may change when a run resumes.
RESULT_FREE = ("accelerator", "checkpoint", "sinks", "controls")
MEASUREMENT = ("evaluation", "accelerator")  # sections that an evaluation may override
# Keys that it and a training that goes on may override, because they say only where the same data lie; a task family
# has more in `data_places`.
PLACES = ("task.folder",)


def list_changes(before: config.RunConfig, after: config.RunConfig) -> list[str]:
    """Return the dotted keys at which two configs differ and which can change the numbers of a run.

    The places of the data are not among them; see `refuse_unknown_data`.
    """
    keys = list_different_keys(_drop_result_free(before), _drop_result_free(after))
    return [key for key in keys if key not in list_places(before)]


def list_places(run_config: config.RunConfig) -> list[str]:
    """Return the dotted keys that say where the data of a task lie."""
    return [*PLACES, *(f"task.{name}" for name in getattr(run_config.task.config, "data_places", ()))]


def refuse_unknown_data(
    before: config.RunConfig, after: config.RunConfig, kept: Mapping[str, Any] | None, where: str
) -> None:
    """Refuse another place of the data to a run that has kept nothing by which they could be told apart from others.

    A run that has kept their fingerprint compares it when its task is built.

    Args:
      kept: what the run keeps of its task, or None.
      where: the run's own config lies.

    Raises:
      ConfigError: names the keys.
    """
    changed = list_different_keys(config.document(before)["task"], config.document(after)["task"], "task")
    moved = [key for key in changed if key in list_places(before)]
    if moved and "fingerprint" not in (kept or {}):
        what = f"{', '.join(moved)} cannot change: the run has kept no fingerprint of its data to compare them by"
        remedy = "put the data back where they lay, or begin a new run"
        raise errors.ConfigError(what, where, remedy)


def check_resume(before: config.RunConfig, after: config.RunConfig, where: str) -> None:
    """Check that a run may resume with the config `after`.

    Raises:
      ConfigError: the config would give other numbers. It names the keys, and `where` the run's own config lies.
    """
    if changed := list_changes(before, _keep_steps(before, after)):
        raise errors.ConfigError(
            f"the run was begun with other values of: {', '.join(changed)}",
            where,
            "resume it with its own config, or begin a new run without --resume",
        )


def keep_settled(before: config.RunConfig, after: config.RunConfig) -> config.RunConfig:
    """Return the config `after`, which may resume `before`, with what `before` has settled.

    That is the task chunks, the steps of a budget in FLOPs, and what the task chose by its data.
    """
    stages, after = [], _keep_steps(before, after)
    for old, new in zip(before.stages, after.stages, strict=True):
        if new.training.task_chunk == "auto":
            new = replace(new, training=replace(new.training, task_chunk=old.training.task_chunk))
        stages.append(new)
    return replace(after, stages=tuple(stages))


def _keep_steps(before: config.RunConfig, after: config.RunConfig) -> config.RunConfig:
    """Return the config `after` with the steps that `before` has settled for the same budgets in FLOPs."""
    stages = list(after.stages)
    for place, (old, new) in enumerate(zip(before.stages, after.stages, strict=False)):
        steps, budget = old.training.steps, old.training.flops
        if budget is None or budget != new.training.flops or steps is None:
            continue
        if new.training.last_step >= steps:
            stages[place] = replace(new, training=replace(new.training, steps=steps))
    return replace(after, task=keep_choices(before.task, after.task), stages=tuple(stages))


def keep_choices(before: Selection, after: Selection) -> Selection:
    """Return the task `after` with what `before` chose by its data, where `after` leaves that open."""
    usual = {field.name: plugins.get_default(field) for field in fields(after.config)}
    choices = {
        name: getattr(before.config, name)
        for name in getattr(after.config, "settled_options", ())
        if getattr(after.config, name) == usual[name] and hasattr(before.config, name)
    }
    return Selection(after.name, replace(after.config, **choices))


def check_evaluation(before: config.RunConfig, after: config.RunConfig) -> None:
    """Check that an evaluation changes only how it measures and where it computes.

    Raises:
      ConfigError: it changes a key that the training used. It names the keys.
    """
    keys = list_different_keys(config.document(before), config.document(after))
    places = list_places(before)
    if changed := [key for key in keys if key.split(".")[0] not in MEASUREMENT and key not in places]:
        raise errors.ConfigError(
            f"{', '.join(changed)} cannot change after training",
            "the overrides of metarun eval",
            "override keys of evaluation and accelerator only, for example evaluation.shots=5",
        )


def _drop_result_free(run_config: config.RunConfig) -> dict[str, Any]:
    """Return the config without the keys that cannot change the numbers: device, chunks, checkpoints."""
    plain = config.document(run_config)
    for name in RESULT_FREE:
        plain.pop(name, None)
    for stage in plain.get("stages", [plain]):
        del stage["training"]["chunk"], stage["training"]["task_chunk"]
    return plain


def list_different_keys(before: Any, after: Any, prefix: str = "") -> list[str]:
    """Return the dotted keys at which two trees of plain values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = list(dict.fromkeys([*before, *after]))
        members = [(before.get(name), after.get(name), f"{prefix}.{name}".lstrip(".")) for name in names]
    elif isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)) and len(before) == len(after):
        members = [(*pair, f"{prefix}.{index}") for index, pair in enumerate(zip(before, after, strict=True))]
    else:
        return [] if before == after else [prefix]
    return [key for member in members for key in list_different_keys(*member)]
