"""Which process of how many this one is, and where process 0 listens.

The config comes first (`accelerator.hosts`), then the variables below, then the cluster: SLURM, Open MPI or a TPU pod.
jax itself reads the address of process 0 from the cluster.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metarun import errors
from metarun.config import Hosts

ADDRESS = "JAX_COORDINATOR_ADDRESS"
COUNTS = ("JAX_NUM_PROCESSES", "JAX_PROCESS_COUNT")
INDICES = ("JAX_PROCESS_ID", "JAX_PROCESS_INDEX")
# What `srun` and `mpirun` set for every process that they start, and an `sbatch` script alone does not have.
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
OPEN_MPI = ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
TPU = ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")
TPU_DEVICES = (Path("/dev/accel0"), Path("/dev/vfio/0"))


@dataclass(frozen=True)
class Placement:
    """The place of this process in a run of several. The cluster fills in what is None."""

    coordinator: str | None  # HOST:PORT, where process 0 listens
    count: int | None
    index: int | None
    cluster: str | None  # its name; None: none was found

    def __str__(self) -> str:
        """Return what an error says about where it happened."""
        known = self.index is not None and self.count is not None
        place = f"process {self.index} of {self.count}" if known else f"a process of {self.cluster}"
        return f"{place}, coordinator {self.coordinator or f'as {self.cluster} says'}"


def find_placement(settings: Hosts, variables: Mapping[str, str]) -> Placement | None:
    """Return the place of this process; None: it trains alone.

    Raises:
      ConfigError: a part of the place is missing, or is no number.
    """
    if settings.count == 1:
        return None
    cluster, cluster_count, cluster_index = find_cluster(variables)
    coordinator = settings.coordinator or variables.get(ADDRESS) or None
    count = settings.count or read_number(variables, COUNTS)
    index = settings.index if settings.index is not None else read_number(variables, INDICES)
    if cluster is None and (coordinator, count, index) == (None, None, None):
        return None
    count = cluster_count if count is None else count
    index = cluster_index if index is None else index
    if count == 1:
        return None
    placement = Placement(coordinator, count, index, cluster)
    refuse_unknown_place(placement)
    return placement


def find_cluster(variables: Mapping[str, str]) -> tuple[str | None, int | None, int | None]:
    """Return the name of the cluster that has started this process, and its count and index, as far as known."""
    if all(name in variables for name in OPEN_MPI):
        return "Open MPI", read_number(variables, OPEN_MPI[1:2]), read_number(variables, OPEN_MPI[2:3])
    if all(name in variables for name in SLURM):
        return "SLURM", read_number(variables, SLURM[2:3]), read_number(variables, SLURM[3:4])
    if any(name in variables for name in TPU) or is_tpu_host():
        return "a TPU pod", None, None
    return None, None, None


def is_tpu_host() -> bool:
    """Return whether this machine has a TPU, and the library for it."""
    return importlib.util.find_spec("libtpu") is not None and any(path.exists() for path in TPU_DEVICES)


def read_number(variables: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    """Return the first of some variables as a whole number; None: none of them is set.

    Raises:
      ConfigError: it is no whole number from 0.
    """
    name = next((name for name in names if variables.get(name)), None)
    if name is None:
        return None
    if not variables[name].isdecimal():
        raise errors.ConfigError(
            f"{name} is no whole number: {variables[name][:80]}",
            "the environment",
            f"correct or unset {name}",
        )
    return int(variables[name])


def refuse_unknown_place(placement: Placement) -> None:
    """Refuse a place that is not among those of the run, or that nobody can complete.

    Raises:
      ConfigError: names what is missing or wrong.
    """
    count, index = placement.count, placement.index
    if count is not None and index is not None and index >= count:
        raise errors.ConfigError(
            f"there is no process {index} of {count}: the indices go from 0 to {count - 1}",
            f"accelerator.hosts, or {COUNTS[0]} and {INDICES[0]}",
            "give every process an index of its own below the count",
        )
    sources = {"coordinator": ADDRESS, "count": COUNTS[0], "index": INDICES[0]}
    missing = [name for name in sources if getattr(placement, name) is None]
    if missing and placement.cluster is None:
        raise errors.ConfigError(
            f"several processes are to train this run, and of this one is not known: {', '.join(missing)}",
            "accelerator.hosts",
            f"give accelerator.hosts.{missing[0]} or set {sources[missing[0]]}; accelerator.hosts.count=1 trains alone",
        )
