"""What runs are called beside one another: the name of the config, and the keys in which their configs differ."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from metarun import errors
from metarun.config import yaml_file
from metarun.runs import directory

Flat = dict[str, Any]  # {dotted key: value} of a config

# Keys that change where and when a run computes, and not what.
UNTOLD_SECTIONS = ("accelerator", "checkpoint", "sinks", "controls")
UNTOLD_KEYS = ("chunk", "task_chunk")
MOST_KEYS = 4  # in a label


def read_flat_config(run: Path) -> Flat:
    """Read the config of a run as dotted keys, without binding it: it may be of another version of metarun.

    Raises:
      ConfigError: there is none, or it is damaged.
    """
    return flatten(yaml_file.read(run / directory.CONFIG).value)


def flatten(value: Any, prefix: str = "") -> Flat:
    """Return {dotted key: value}; a stage stands under its name, and a list of plain values is one value."""
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        members = {str(item.get("name", number)): item for number, item in enumerate(value)}.items()
    else:
        return {prefix: value}
    return {
        key: inner
        for name, member in members
        for key, inner in flatten(member, f"{prefix}.{name}".lstrip(".")).items()
    }


def name_config(run: Path) -> str:
    """Return the name of the config that a run is of: that of its folder, or the one that the run was given."""
    whole = run.resolve()
    return whole.parent.name if directory.has_stamp(whole) else whole.name


def list_differences(configs: Sequence[Flat]) -> list[Flat]:
    """Return for each config the keys at which not all of them have one value, with its values."""
    keys = dict.fromkeys(key for flat in configs for key in flat if is_told(key))
    # A key that an older version did not write is the same as null.
    varying = [key for key in keys if any(flat.get(key) != configs[0].get(key) for flat in configs)]
    return [{key: flat[key] for key in varying if key in flat} for flat in configs]


def is_told(key: str) -> bool:
    """Return whether a key can change the numbers of a run."""
    return key.split(".")[0] not in UNTOLD_SECTIONS and key.rpartition(".")[2] not in UNTOLD_KEYS


def shorten_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return {dotted key: its last word}, with as many words before it as tell the keys apart."""
    keys = list(keys)
    short = {}
    for key in keys:
        words = key.split(".")
        ends = (".".join(words[-count:]) for count in range(1, len(words) + 1))
        short[key] = next(
            (end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key
        )
    return short


def format_keys(values: Flat, most: int = MOST_KEYS) -> str:
    """Return `inner_lr=0.1 seed=2`, with at most so many keys."""
    short = shorten_keys(values)
    words = [f"{short[key]}={format_value(value)}" for key, value in values.items()]
    return " ".join([*words[:most], *["…"] * (len(words) > most)])


def format_value(value: Any) -> str:
    """Return a value as somebody would write it in a config."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def name_runs(paths: list[Path]) -> list[str]:
    """Return a label for each run: the name of its config; with the keys that differ where several runs have one name.

    Runs that nothing else tells apart have their path in their label.
    """
    names = [name_config(path) for path in paths]
    labels = list(names)
    groups: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        groups[name].append(place)
    for name, places in groups.items():
        if len(places) > 1:
            for place, text in zip(places, tell_apart([paths[place] for place in places]), strict=True):
                labels[place] = f"{name} {text}".rstrip()
    counts = Counter(labels)
    return [label if counts[label] == 1 else str(path) for label, path in zip(labels, paths, strict=True)]


def tell_apart(runs: list[Path]) -> list[str]:
    """Return for each run the keys that differ; if these are many, the first few that tell the runs apart."""
    try:
        differences = list_differences([read_flat_config(run) for run in runs])
    except errors.ConfigError:
        return ["" for _ in runs]
    keys = list(dict.fromkeys(key for flat in differences for key in flat))
    chosen: list[str] = []
    for key in keys if len(keys) > MOST_KEYS else []:
        if count_kinds(differences, [*chosen, key]) > count_kinds(differences, chosen):
            chosen.append(key)
    return [
        format_keys({key: flat[key] for key in chosen or keys if key in flat}, len(keys))
        for flat in differences
    ]


def count_kinds(differences: list[Flat], keys: list[str]) -> int:
    """Return how many of the configs these keys tell apart."""
    return len({tuple(repr(flat.get(key)) for key in keys) for flat in differences})
