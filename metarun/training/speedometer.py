"""How fast a stage trains: the lines of metrics.jsonl with the split `speed`, one about every second.

They are made on the host between two chunks, from what is known there, so no chunk gives anything back for them.
"""

import math
import resource
import sys
from typing import Any

import jax

from metarun import config
from metarun.runs import metrics
from metarun.stages import Stage
from metarun.training import budgets

PERIOD = 1.0  # seconds of training that a line covers at least, so that short chunks do not double the file


class Speedometer:
    """Counts the steps and the seconds since the last line."""

    def __init__(self, stage: Stage, devices: list[jax.Device]) -> None:
        self.stage = stage
        self.devices = [device for device in devices if device.process_index == jax.process_index()]
        self.steps, self.seconds = 0, 0.0

    def make_rows(self, step: int, count: int, seconds: float, before: float) -> list[dict[str, Any]]:
        """Return the lines if some are due, as at the end of the stage: one, or one for each trial with its own rate.

        Args:
          step: the last step that was taken.
          count: the steps of the chunk.
          seconds: that the chunk took.
          before: seconds that the training took before it.
        """
        training = self.stage.training
        self.steps, self.seconds = self.steps + count, self.seconds + seconds
        if self.seconds < PERIOD and budgets.find_end(training, step, before + seconds) is None:
            return []
        tasks = self.steps * training.tasks_per_step * len(self.stage.positions)
        speed = tasks / max(self.seconds, 1e-9)
        self.steps, self.seconds = 0, 0.0
        rows: list[dict[str, Any]] = [
            {"stage": self.stage.name, "replica": replica, "split": metrics.SPEED, "step": step}
            | {"learning_rate": float(f"{calculate_rate(settings, step - 1):.6g}")}
            for replica, settings in enumerate(list_trainings(self.stage))
        ]
        rows[0] |= {"seconds": round(before + seconds, 3), "tasks_per_second": float(f"{speed:.4g}")}
        rows[0] |= {"memory_peak_bytes": read_memory_peak(self.devices)}
        return rows


def list_trainings(stage: Stage) -> list[config.Training]:
    """Return the training settings of each trial, if the trials differ in them; else those of all."""
    start = f"{stage.name}/training."
    differing = {path: values for path, values in stage.differing.items() if path.startswith(start)}
    if not differing:
        return [stage.training]
    return [
        stage.take_numbers({path: values[replica].item() for path, values in differing.items()}).training
        for replica in range(stage.axes["replica"])
    ]


def calculate_rate(training: config.Training, step: int) -> float:
    """Return the learning rate at a step, counted from 0, as `optimizer.make_schedule` does, without jax.

    There it is a part of the compiled program, and here nothing shall be compiled.
    """
    peak, schedule = training.optimizer.config.learning_rate, training.optimizer.config.schedule
    options = schedule.config
    match schedule.name:
        case "cosine":
            if step < options.warmup_steps:
                return peak * step / options.warmup_steps
            length = training.last_step - options.warmup_steps
            cosine = 0.5 * (1 + math.cos(math.pi * min(step - options.warmup_steps, length) / length))
            return peak * ((1 - options.final) * cosine + options.final)
        case "linear":
            return peak * (
                options.final + (1 - options.final) * (1 - min(step, training.last_step) / training.last_step)
            )
        case "exponential":
            return peak * options.decay ** (step / options.every)
        case "step":
            return peak * options.factor ** (step // options.every)
    return peak


def read_memory_peak(devices: list[jax.Device]) -> int:
    """Return the most bytes that were ever in use on one of the devices, or in the process if they do not count."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in devices]
    if peak := max(peaks, default=0):
        return peak
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
