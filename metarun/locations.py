"""Where metarun keeps things outside a run directory. Knows nothing of the rest.

METARUN_DATA    the data sets           (default: <cache>/data)
METARUN_CACHE   decoded data, compiled  (default: $XDG_CACHE_HOME/metarun, else ~/.cache/metarun)
"""

import os
from pathlib import Path


def cache_root() -> Path:
    """The folder of everything that can be made again: decoded images and compiled programs."""
    if chosen := os.environ.get("METARUN_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metarun"


def data_root() -> Path:
    """The folder of the data sets, one subfolder each; treated as read-only except by `metarun data fetch`."""
    chosen = os.environ.get("METARUN_DATA")
    return Path(chosen).expanduser() if chosen else cache_root() / "data"
