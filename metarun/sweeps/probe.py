"""The questions of a sweep that need jax, answered in a process of its own: the devices belong to the programs.

    python -m metarun.sweeps.probe devices CONFIG
    python -m metarun.sweeps.probe obstacles CONFIG KEY...
    python -m metarun.sweeps.probe memory CONFIG
    python -m metarun.sweeps.probe flops CONFIG

Each prints one JSON object as its last line.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarun import config, errors

ERRORS = {kind.__name__: kind for kind in errors.MetarunError.__subclasses__()}


class Devices(NamedTuple):
    """The devices of this machine that the config chooses."""

    platform: str
    number: int


class StageFlops(NamedTuple):
    """Operations of the matrix products and convolutions of a training, of one replica with all its members."""

    own: float
    total: float  # with those of the stages that it stands on


def find_devices(run_config: config.RunConfig) -> Devices:
    """Return the devices that a config chooses here.

    Raises:
      MetarunError: there are none of this kind.
    """
    answer = ask("devices", run_config)
    return Devices(answer["platform"], answer["number"])


def find_obstacles(run_config: config.RunConfig, keys: Sequence[str]) -> dict[str, str | None]:
    """Return why each key cannot differ between the trials of one program; None: it can.

    Raises:
      MetarunError: the config cannot be trained.
    """
    obstacles: dict[str, str | None] = ask("obstacles", run_config, *keys)["obstacles"]
    return obstacles


def count_fitting(run_config: config.RunConfig) -> int:
    """Return how many of the trials of a run fit into the memory side by side.

    Raises:
      MetarunError: the config cannot be trained.
    """
    return int(ask("memory", run_config)["trials"])


def count_flops(run_config: config.RunConfig) -> dict[str, StageFlops]:
    """Return {stage: what its training costs}.

    Raises:
      MetarunError: the config cannot be trained.
    """
    return {stage: StageFlops(*counted) for stage, counted in ask("flops", run_config)["flops"].items()}


def ask(question: str, run_config: config.RunConfig, *arguments: str) -> dict[str, Any]:
    """Return the answer of a process of its own.

    Raises:
      MetarunError: what that process has raised.
    """
    with tempfile.TemporaryDirectory(prefix="metarun-") as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(config.to_yaml(run_config), "utf-8")
        command = [sys.executable, "-m", "metarun.sweeps.probe", question, str(file), *arguments]
        # The memory of a GPU is for the programs; this process takes none that it does not need.
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = done.stdout.splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = (done.stderr.splitlines() or ["it said nothing"])[-1]
        raise errors.MetarunError(
            f"the machine cannot be asked about its {question}: {last}",
            "metarun sweep",
            "look whether `metarun doctor` runs through",
        ) from None
    if "error" in answer:
        name, *texts = answer["error"]
        raise ERRORS.get(name, errors.MetarunError)(*texts)
    return answer


def answer(question: str, run_config: config.RunConfig, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the answer to a question, ready for JSON."""
    from metarun import experiment, hardware
    from metarun.training import traceable

    if question == "devices":
        devices = hardware.select(run_config.accelerator)
        return Devices(devices[0].platform, len(devices))._asdict()
    if question == "obstacles":
        return {"obstacles": traceable.find_obstacles(run_config, arguments)}
    if question == "flops":
        from metarun.sweeps import stage_flops

        return {"flops": stage_flops.count_flops(run_config)}
    return {"trials": experiment.count_trials_that_fit(run_config)}


def main() -> None:
    """Answer the question of the command line."""
    question, file, *arguments = sys.argv[1:]
    try:
        answered = answer(question, config.load(file), arguments)
    except errors.MetarunError as error:
        answered = {"error": [type(error).__name__, error.what, error.where, error.remedy]}
    print(json.dumps(answered))


if __name__ == "__main__":
    main()
