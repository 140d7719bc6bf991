"""The folder of compiled programs, so that the next run of the same config starts at once.

A compiled program is code that runs with the rights of its user. So a folder that others can write to is not used.
"""

import logging
import os
import stat
import warnings
from pathlib import Path

import jax

from metarun import folders

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
SECONDS = 0.3  # of compilation from which on a program is kept

logger = logging.getLogger("metarun")


def use_private_folder() -> None:
    """Let jax keep compiled programs in a private folder. A damaged one is compiled again."""
    folder = folders.cache_root() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fault = find_fault(folder)
    except OSError as error:
        logger.warning("no compilation cache: %s", error)
        return
    if fault:
        logger.warning("no compilation cache: %s; take that right away, or set METARUN_CACHE", fault)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")


def find_fault(folder: Path) -> str | None:
    """Return why others could put a program into a folder; None if they cannot.

    The folder itself belongs to us or to root, and nobody else may write to it. Not everybody may write to a folder
    above it, unless only owners can rename there, as in a folder of temporary files.
    """
    status = folder.stat()
    if status.st_uid not in (os.getuid(), 0):
        return f"{folder} belongs to somebody else"
    if status.st_mode & OTHERS_WRITE:
        return f"others can write to {folder}"
    for above in folder.absolute().parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"everybody can write to {above}"
    return None
