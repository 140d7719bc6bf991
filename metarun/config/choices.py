"""What a Selection can choose: plug-ins by their files, optimizers and schedules by their tables."""

from metarun import plugins
from metarun.config.optimizers import OPTIMIZERS
from metarun.config.schedules import SCHEDULES

TABLES: dict[str, dict[str, type]] = {"optimizer": {**OPTIMIZERS}, "schedule": SCHEDULES}


def names(kind: str) -> list[str]:
    """The names of a kind, sorted."""
    return sorted(TABLES[kind]) if kind in TABLES else plugins.names(kind)


def config_class(kind: str, name: str) -> type:
    """The dataclass whose fields are the options of `name`."""
    return TABLES[kind][name] if kind in TABLES else plugins.config_class(kind, name)
