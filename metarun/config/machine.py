"""Where a run computes: its devices, their precision, and its place among several processes."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from metarun.ranges import Above, AtLeast, AtMost

Count = Annotated[int, AtLeast(1)]


@dataclass(frozen=True)
class Hosts:
    """The place of this process in a run of several processes. SLURM, Open MPI and TPU pods say it themselves."""

    # HOST:PORT where process 0 listens, which all must reach; null: JAX_COORDINATOR_ADDRESS, or what the cluster says.
    coordinator: str | None = None
    # Processes of the run; null: JAX_NUM_PROCESSES, or what the cluster says; 1: this one alone, whatever those say.
    count: Count | None = None
    # This process, from 0 to count - 1; null: JAX_PROCESS_ID, or what the cluster says.
    index: Annotated[int, AtLeast(0)] | None = None

    def __post_init__(self) -> None:
        if self.coordinator is not None and not re.fullmatch(r"[^\s:]\S*:[0-9]{1,5}", self.coordinator):
            raise ValueError(
                f"the coordinator {self.coordinator!r} is no address",
                "give the host and the port of process 0, such as 10.0.0.1:4321",
            )
        if self.count is not None and self.index is not None and self.index >= self.count:
            raise ValueError(
                f"there is no process {self.index} of {self.count}",
                f"use an index from 0 to {self.count - 1}",
            )


@dataclass(frozen=True)
class Accelerator:
    """The devices that compute, and their precision."""

    platform: Literal["auto", "cpu", "gpu", "tpu"] = "auto"  # auto: the fastest that is present
    devices: Count | None = None  # number of devices, of each process; null: all
    # Precision of what matrix products and convolutions multiply; they add in float32, and all else is float32.
    # A CPU computes all of it in float32.
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    # Share of a GPU's memory that the run takes when it starts; null: what the environment says, else 0.75.
    memory_fraction: Annotated[float, Above(0), AtMost(1)] | None = None
    # Compute the same bits on a GPU in every process, at some cost of speed: no sums in changing order, and no
    # choice of kernels by their time. A CPU always does.
    deterministic: bool = False
    hosts: Hosts = Hosts()  # the processes that train the run together
