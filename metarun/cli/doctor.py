"""`metarun doctor`: is this machine ready? Versions, devices, caches and their permissions, data, a smoke run."""

import importlib.metadata
import os
import platform
import tempfile
import time
from pathlib import Path

import typer

import metarun
from metarun import config, errors, locations
from metarun.cli import tables
from metarun.progress import Progress

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
SMOKE = """
task: {name: sinusoid}
model: {name: mlp}
algorithm: {name: maml}
training: {steps: 10, tasks_per_step: 4}
evaluation: {episodes: 4}
"""


def examine() -> None:
    """Print a line a check; nothing is left behind.

    Raises:
      MetarunError: what a check found wrong, with its exit code.
    """
    typer.echo(tables.aligned([*versions(), *folders(), *data(), *devices(), smoke()]))
    typer.echo("all is well")


def versions() -> list[list[str]]:
    """Of metarun, Python and the libraries."""
    own = [
        ["metarun", metarun.__version__],
        ["python", f"{platform.python_version()} ({platform.platform()})"],
    ]
    return own + [[name, importlib.metadata.version(name)] for name in LIBRARIES]


def folders() -> list[list[str]]:
    """The cache must be ours to write, and nobody else's: compiled programs in it are executed."""
    cache = locations.cache_root()
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise errors.StorageError(
            f"the cache cannot be written: {error}", str(cache), "set METARUN_CACHE to a folder of yours"
        ) from error
    compiled = cache / "compiled"
    status = (compiled if compiled.is_dir() else cache).stat()
    if status.st_mode & 0o022 or status.st_uid != os.getuid():
        raise errors.StorageError(
            "others may write to the compilation cache", str(compiled), f"chmod go-w {compiled}, or remove it"
        )
    return [["cache", f"{cache} (writable, private)"]]


def data() -> list[list[str]]:
    """Which data sets are there; none is needed for the built-in sinusoid."""
    from metarun.data import datasets

    root = locations.data_root()

    def state(name: str) -> str:
        there = all(source.path(root).is_file() for source in datasets.module(name).SOURCES)
        return "there" if there else f"missing: `metarun data fetch {name}`"

    return [["data folder", str(root)], *([f"data set {name}", state(name)] for name in datasets.names())]


def devices() -> list[list[str]]:
    """What jax would compute on."""
    from metarun import parallel

    found = parallel.select(config.Accelerator())
    return [["devices", ", ".join(f"{device.platform}:{device.id} {device.device_kind}" for device in found)]]


def smoke() -> list[str]:
    """Ten steps of MAML on the sinusoid, saved and measured, in a folder that is removed again."""
    from metarun import experiment

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "smoke.yaml"
        file.write_text(SMOKE)
        started = time.perf_counter()
        experiment.train(config.load(file), Path(folder) / "run", False, ["doctor"], Progress())
        return ["smoke run", f"10 steps in {time.perf_counter() - started:.1f} s, compilation included"]
