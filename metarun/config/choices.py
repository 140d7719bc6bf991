"""What a Selection can choose: plug-ins from their files, optimizers and schedules from their tables."""

import dataclasses
from pathlib import Path
from typing import Any

from metarun import folders, outside, plugins
from metarun.config.optimizers import OPTIMIZERS
from metarun.config.schedules import SCHEDULES

TABLES: dict[str, dict[str, type]] = {"optimizer": {**OPTIMIZERS}, "schedule": SCHEDULES}
DEFAULTS = {"optimizer": "adam", "schedule": "constant"}  # what is chosen where a section has no name


def list_kinds() -> list[str]:
    """Return the kinds that a section chooses among: the keys of such sections."""
    return [*plugins.FOLDERS, *TABLES]


def list_names(kind: str) -> list[str]:
    """Return the names of a kind, sorted."""
    return sorted(TABLES[kind]) if kind in TABLES else plugins.list_names(kind)


def read_config_class(kind: str, name: str) -> type:
    """Return the dataclass whose fields are the options of `name`."""
    return TABLES[kind][name] if kind in TABLES else plugins.read_config_class(kind, name)


def list_shared_options(kind: str, *names: Any) -> set[str]:
    """Return the options that all these choices take from one group, such as the learning rate of every optimizer.

    Names that do not exist share nothing.
    """
    if not all(name in list_names(kind) for name in names):
        return set()
    groups = [set(read_config_class(kind, name).__mro__) - {object} for name in names]
    shared = set.intersection(*groups)
    return {field.name for group in shared for field in dataclasses.fields(group)}


def locate_outside(kind: str, name: str, folder: Path) -> str | None:
    """Return the name of a plug-in from elsewhere, a file by its whole path.

    Args:
      folder: where a path begins.

    Returns:
      None if there is no such file or module.
    """
    if kind in TABLES:
        return None
    if outside.is_file_name(name):
        name = str((folder / folders.expand_home(name)).resolve())
    return name if outside.find_source(kind, name) else None
