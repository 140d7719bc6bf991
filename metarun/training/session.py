"""What all stages of a run share."""

from typing import NamedTuple

import jax

from metarun import config, hardware, signals
from metarun.assembly import Tasks
from metarun.hosts.processes import Processes
from metarun.progress import Progress
from metarun.runs.directory import RunDirectory


class Session(NamedTuple):
    """What all stages of a run share."""

    run: RunDirectory
    devices: list[jax.Device]  # of all processes
    tasks: Tasks  # on `device`
    evaluation: config.Evaluation
    checkpoint: config.Checkpoint
    progress: Progress
    stop: signals.StopRequest
    processes: Processes = Processes()  # this process alone
    accelerator: config.Accelerator = config.Accelerator()

    @property
    def device(self) -> jax.Device:
        """The device of this process that has the tasks, and measures."""
        return hardware.select_own(self.devices)
