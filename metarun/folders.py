"""The folders that metarun uses outside a run directory. Imports no part of metarun.

METARUN_DATA    data sets                            (default: <cache>/data)
METARUN_CACHE   decoded data and compiled programs   (default: $XDG_CACHE_HOME/metarun, else ~/.cache/metarun)
"""

import os
from pathlib import Path


def cache_root() -> Path:
    """Return the folder of all that can be made again: decoded pictures and compiled programs."""
    if chosen := os.environ.get("METARUN_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metarun"


def data_root() -> Path:
    """Return the folder of the data sets, a subfolder for each. Only `metarun data fetch` writes there."""
    chosen = os.environ.get("METARUN_DATA")
    return Path(chosen).expanduser() if chosen else cache_root() / "data"
