"""Weights & Biases: one run, which later sessions go on with.

Online if an API key is there, else offline, which leaves files below RUN/wandb (or FOLDER/wandb) for `wandb sync`.
WANDB_MODE, WANDB_PROJECT and WANDB_ENTITY choose otherwise. W&B counts its steps over all stages, so the x-axis of a
stage is its own number STAGE/step.
"""

import os
import secrets
from itertools import groupby
from pathlib import Path
from typing import Any

import wandb

from metarun.sinks.contract import Opening
from metarun.sinks.series import Point


def open_sink(opening: Opening) -> "WandbRun":
    """Return the run, whose session begins with its first point."""
    return WandbRun(opening, opening.facts.get("id") or secrets.token_hex(4))


def begin_session(opening: Opening, name: str, folder: Path, mode: str) -> Any:
    """Begin the run, or go on with it."""
    quiet = {"silent": True, "console": "off", "disable_git": True, "disable_code": True}
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", "metarun"),
        id=name,
        resume="allow",
        name=opening.name,
        group=opening.group,
        config=opening.config,
        dir=str(folder),
        mode=mode,  # type: ignore[arg-type]
        settings=wandb.Settings(**quiet, x_disable_stats=True),  # type: ignore[arg-type]
    )


def choose_mode() -> str:
    """Return the mode: never one that asks for a key, because nobody sees the question."""
    return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")


class WandbRun:
    """A run of Weights & Biases."""

    keeps_halves = True  # it cannot say what has arrived

    def __init__(self, opening: Opening, name: str) -> None:
        self.opening, self.name, self.mode = opening, name, choose_mode()
        self.folder = opening.folder or opening.run
        self.place = f"{self.folder / 'wandb'} ({self.mode})"
        self.run: Any = None
        self.stages: set[str] = set()

    def send(self, points: list[Point], milliseconds: int) -> None:
        """Log the points of one step of a stage together, as one step of W&B."""
        self.run = self.run or begin_session(self.opening, self.name, self.folder, self.mode)
        for (stage, step), group in groupby(points, key=lambda point: (point.stage, point.step)):
            if stage not in self.stages:
                self.stages.add(stage)
                self.run.define_metric(f"{stage}/step", hidden=True)
                self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            values = {name: value for point in group for name, value in point.values.items()}
            self.run.log({f"{stage}/step": step, **values})

    def flush(self) -> dict[str, Any]:
        """Return the name of the run. W&B's own process writes and sends."""
        return {"id": self.name}

    def close(self, status: str) -> None:
        """Wait until W&B has everything."""
        if self.run is not None:
            self.run.finish(exit_code=0 if status in ("done", "running") else 1)
