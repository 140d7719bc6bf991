"""A config with its tasks and its stages, as a run builds them."""

from pathlib import Path
from typing import NamedTuple

import jax

from helpers.runs import SINGLE, load
from metarun import assembly, config
from metarun.assembly import Tasks
from metarun.stages import Stage


class Assembled(NamedTuple):
    config: config.RunConfig
    tasks: Tasks
    stages: list[Stage]

    @property
    def stage(self) -> Stage:
        """The last stage."""
        return self.stages[-1]


def assemble(folder: Path, text: str = SINGLE, *overrides: str) -> Assembled:
    """Write a config into the folder, and build what it describes."""
    run_config = load(folder, text, *overrides)
    tasks = assembly.build_tasks(run_config, jax.devices()[0])
    return Assembled(run_config, tasks, assembly.build_stages(run_config, tasks.family.problem))
