"""MLflow: one run of an experiment that has the name of the config.

It goes to MLFLOW_TRACKING_URI, else to mlflow.db in FOLDER or in the folder that the command was called in, which is
where `mlflow ui` looks. The bookmark remembers the store. MLflow drops a metric that it has with the same time, so a
batch that is sent again arrives once.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
from mlflow import entities

from metarun.sinks.contract import Opening
from metarun.sinks.series import Point

AT_ONCE = 1000  # metrics in one call, which is as many as MLflow takes
PARAMETERS = 100  # parameters in one call
LONGEST = 6000  # characters of a parameter
STATUS = {"done": "FINISHED", "diverged": "FAILED", "failed": "FAILED", "preempted": "KILLED"}


def open_sink(opening: Opening) -> "MlflowRun":
    """Begin the run with its config as parameters, or go on with it."""
    place = opening.facts.get("place") or choose_store(opening.folder)
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it creates
    client = mlflow.MlflowClient(tracking_uri=place)
    name = opening.facts.get("run")
    if name:
        client.update_run(name, status="RUNNING")
        return MlflowRun(client, name, place)
    run = client.create_run(find_experiment(client, opening.group), run_name=opening.name)
    parameters = [entities.Param(key, value[:LONGEST]) for key, value in flatten(opening.config)]
    for first in range(0, len(parameters), PARAMETERS):
        client.log_batch(run.info.run_id, params=parameters[first : first + PARAMETERS])
    return MlflowRun(client, run.info.run_id, place)


def choose_store(folder: Path | None) -> str:
    """Return the address of the store for a run that has none yet."""
    if folder is None and os.environ.get("MLFLOW_TRACKING_URI"):
        return os.environ["MLFLOW_TRACKING_URI"]
    return f"sqlite:///{(folder or Path.cwd()).resolve() / 'mlflow.db'}"


def find_experiment(client: Any, name: str) -> str:
    """Return the experiment of a name; create it if need be, while others may do the same."""
    try:
        return client.create_experiment(name)
    except mlflow.exceptions.MlflowException:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        return experiment.experiment_id


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) of all values of a config."""
    if isinstance(value, dict | list) and value:
        members = value.items() if isinstance(value, dict) else enumerate(value)
        for name, member in members:
            yield from flatten(member, f"{key}.{name}".lstrip("."))
    else:
        yield key, str(value)


class MlflowRun:
    """A run in an MLflow store."""

    keeps_halves = False

    def __init__(self, client: Any, name: str, place: str) -> None:
        self.client, self.name, self.place = client, name, place

    def send(self, points: list[Point], milliseconds: int) -> None:
        """Log all values of the points."""
        values = [
            entities.Metric(name, value, milliseconds, point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for first in range(0, len(values), AT_ONCE):
            self.client.log_batch(self.name, metrics=values[first : first + AT_ONCE])

    def flush(self) -> dict[str, Any]:
        """Return the store and the name of the run in it; nothing is buffered."""
        return {"place": self.place, "run": self.name}

    def close(self, status: str) -> None:
        """Say how the run ended, if it has."""
        if status in STATUS:
            self.client.set_terminated(self.name, STATUS[status])
