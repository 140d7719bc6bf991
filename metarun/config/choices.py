"""What a Selection can choose: plug-ins from their files, optimizers and schedules from their tables."""

from metarun import plugins
from metarun.config.optimizers import OPTIMIZERS
from metarun.config.schedules import SCHEDULES

TABLES: dict[str, dict[str, type]] = {"optimizer": {**OPTIMIZERS}, "schedule": SCHEDULES}


def list_names(kind: str) -> list[str]:
    """Return the names of a kind, sorted."""
    return sorted(TABLES[kind]) if kind in TABLES else plugins.list_names(kind)


def read_config_class(kind: str, name: str) -> type:
    """Return the dataclass whose fields are the options of `name`."""
    return TABLES[kind][name] if kind in TABLES else plugins.read_config_class(kind, name)
