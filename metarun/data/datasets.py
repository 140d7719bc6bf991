"""The modules of data sets by name: `sets/NAME_files.py` is the module of the data set NAME."""

import difflib
import importlib
import pkgutil
from types import ModuleType

from metarun.data import sets
from metarun.errors import UsageError

SUFFIX = "_files"


def list_names() -> list[str]:
    """Return the names of all data sets, sorted."""
    modules = (info.name for info in pkgutil.iter_modules(sets.__path__))
    return sorted(name.removesuffix(SUFFIX) for name in modules if name.endswith(SUFFIX))


def load_module(name: str) -> ModuleType:
    """Return the module of a data set; see `sets` for what it has.

    Raises:
      UsageError: there is no such data set. The message names the nearest one.
    """
    if name not in list_names():
        nearest = difflib.get_close_matches(name, list_names(), n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise UsageError(
            f"no data set {name!r}", "data set", f"{hint}choose one of: {', '.join(list_names())}"
        )
    return importlib.import_module(f"{sets.__name__}.{name}{SUFFIX}")
