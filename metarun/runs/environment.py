"""environment.json: the machine, the versions and the command of a run, without anybody's secrets."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarun.runs import regular_files

PACKAGES = ("metarun", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

# Only these are recorded: other variables may hold tokens and passwords.
VARIABLES = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "MKL_NUM_THREADS",
        "NVIDIA_TF32_OVERRIDE",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_JOB_ID",
        "SLURM_NNODES",
        "SLURM_PROCID",
        "TF_CPP_MIN_LOG_LEVEL",
    }
)
PREFIXES = ("METARUN_", "JAX_", "XLA_")


def describe(argv: Sequence[str], devices: Sequence[str] = ()) -> dict[str, Any]:
    """Return what somebody needs to know to repeat a run.

    Args:
      devices: their names, from a caller that has imported jax.
    """
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "argv": list(argv),
        "cwd": str(Path.cwd()),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "count": os.cpu_count(), "usable": _usable_cpus()},
        "memory_bytes": _memory_bytes(),
        "devices": list(devices),
        "git": {"metarun": _source_commit(), "cwd": _commit(Path.cwd())},
        "variables": select_variables(os.environ),
    }


def read_begin(file: Path) -> dict[str, Any]:
    """Return {"begun": time, argv and cwd of the first start} from an environment.json; {} if it does not say."""
    try:
        content = regular_files.read_sealed(file)
        return {"begun": content.get("begun") or {key: content[key] for key in ("time", "argv", "cwd")}}
    except (OSError, ValueError, LookupError):
        return {}


def select_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return only the variables that change what a run computes, or where."""
    chosen = (name for name in variables if name in VARIABLES or name.startswith(PREFIXES))
    return {name: variables[name] for name in sorted(chosen)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _source_commit() -> dict[str, Any] | None:
    """Return the commit of metarun; None if it is installed, because it may then lie in another project's checkout."""
    source = Path(__file__).resolve().parents[2]
    return _commit(source) if (source / ".git").exists() else None


def _commit(folder: Path) -> dict[str, Any] | None:
    """Return the commit of a folder, and whether tracked files differ from it; None outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # seconds
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # this is not Linux
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _usable_cpus() -> int | None:
    """Return how many CPUs this process may use. On a cluster the machine may have more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
