"""In which keys two configs differ, and which of them may: on resume, and in an evaluation of a finished run."""

from typing import Any

from metarun import config, errors

RESULT_FREE = ("accelerator", "checkpoint")  # sections that may change between two parts of a run
MEASURING = ("evaluation", "accelerator")  # sections that an evaluation may set


def refuse_other_numbers(before: config.RunConfig, after: config.RunConfig, where: str) -> None:
    """Refuse to resume a run with a config that would give other numbers.

    Raises:
      ConfigError: names the keys, and `where` the run's own config lies.
    """
    if changed := different_keys(comparable(before), comparable(after)):
        raise errors.ConfigError(
            f"the run was begun with other values of: {', '.join(changed)}",
            where,
            "resume it with its own config, or begin a new run without --resume",
        )


def refuse_other_changes(before: config.RunConfig, after: config.RunConfig) -> None:
    """An evaluation may set how it measures and where it computes, and nothing that was trained with."""
    keys = different_keys(config.document(before), config.document(after))
    if changed := [key for key in keys if key.split(".")[0] not in MEASURING]:
        raise errors.ConfigError(
            f"{', '.join(changed)} cannot change after training",
            "the overrides of metarun eval",
            "override keys of evaluation and accelerator only, for example evaluation.shots=5",
        )


def comparable(run_config: config.RunConfig) -> dict[str, Any]:
    """The config without what cannot change the numbers: where it is computed, chunks, checkpoints."""
    plain = config.document(run_config)
    for name in RESULT_FREE:
        del plain[name]
    for stage in plain.get("stages", [plain]):
        del stage["training"]["chunk"], stage["training"]["task_chunk"]
    return plain


def different_keys(before: Any, after: Any, prefix: str = "") -> list[str]:
    """The dotted keys at which two trees of plain values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = list(dict.fromkeys([*before, *after]))
        parts = [different_keys(before.get(n), after.get(n), f"{prefix}.{n}".lstrip(".")) for n in names]
        return [key for part in parts for key in part]
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [key for number, pair in pairs for key in different_keys(*pair, f"{prefix}.{number}")]
    return [] if before == after else [prefix]
