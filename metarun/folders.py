"""The folders that metarun uses outside a run directory, and how a run is called.

METARUN_DATA    data sets                            (default: <cache>/data)
METARUN_CACHE   decoded data and compiled programs   (default: $XDG_CACHE_HOME/metarun, else ~/.cache/metarun)
"""

import os
import re
from pathlib import Path

from metarun.errors import ConfigError


def cache_root() -> Path:
    """Return the folder of all that can be made again: decoded pictures and compiled programs."""
    if chosen := os.environ.get("METARUN_CACHE"):
        return expand_home(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else expand_home("~/.cache")) / "metarun"


def data_root() -> Path:
    """Return the folder of the data sets, a subfolder for each. Only `metarun data fetch` writes there."""
    chosen = os.environ.get("METARUN_DATA")
    return expand_home(chosen) if chosen else cache_root() / "data"


def expand_home(path: str) -> Path:
    """Return the path, with a folder for a `~` or `~user` at its beginning.

    Raises:
      ConfigError: there is no such user, or nothing says where the own home is.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        what = f"there is no home folder for {path.partition('/')[0]}"
        remedy = "write the whole path; METARUN_CACHE and METARUN_DATA say where caches and data are"
        raise ConfigError(what, path, remedy) from error


def name_config(path: Path) -> str:
    """Return the name of a config in the runs folder: its path below a folder `configs`, with dashes, or its stem."""
    parts = path.with_suffix("").parts
    below = parts[::-1].index("configs") if "configs" in parts else 1
    parts = parts[len(parts) - below :]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(parts)).strip("-_") or "run"
