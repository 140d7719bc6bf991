"""Finds the module of a data set by its name: the folder `sets/` is the registry."""

import difflib
import importlib
import pkgutil
from types import ModuleType

from metarun.data import sets
from metarun.errors import UsageError


def names() -> list[str]:
    """All data sets, sorted."""
    found = (info.name for info in pkgutil.iter_modules(sets.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def module(name: str) -> ModuleType:
    """The module of this data set (see `sets`); UsageError, with the nearest name, when there is none."""
    if name not in names():
        nearest = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise UsageError(f"no data set {name!r}", "data set", f"{hint}choose one of: {', '.join(names())}")
    return importlib.import_module(f"{sets.__name__}.{name}")
