"""`metarun doctor`: whether this machine is ready, from the versions of libraries to a smoke run."""

import os
import platform
import tempfile
import time
from pathlib import Path

import typer

import metarun
from metarun import errors, folders
from metarun.cli import text_tables

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
SMOKE = """
task: {name: sinusoid}
model: {name: mlp}
algorithm: {name: maml}
training: {steps: 10, tasks_per_step: 4}
evaluation: {episodes: 4}
"""


def doctor() -> None:
    """Check this machine: versions, cache, data, devices.

    A smoke run of ten steps ends it.
    """
    typer.echo(
        text_tables.align(
            [*list_versions(), *check_cache(), *check_data(), *list_devices(), run_smoke_test()]
        )
    )
    typer.echo("all is well")


def list_versions() -> list[list[str]]:
    """Return the versions of metarun, Python and the libraries."""
    import importlib.metadata  # here: it takes long to import

    versions = [
        ["metarun", metarun.__version__],
        ["python", f"{platform.python_version()} ({platform.platform()})"],
    ]
    return versions + [[name, importlib.metadata.version(name)] for name in LIBRARIES]


def check_cache() -> list[list[str]]:
    """Check that the cache is ours to write, and nobody else's: compiled programs in it are executed."""
    cache = folders.cache_root()
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


def check_data() -> list[list[str]]:
    """Return which data sets are there; none is needed for the built-in sinusoid."""
    from metarun.data import datasets

    root = folders.data_root()

    def describe(name: str) -> str:
        there = all(source.path(root).is_file() for source in datasets.load_module(name).SOURCES)
        return "there" if there else f"missing: `metarun data fetch {name}`"

    return [
        ["data folder", str(root)],
        *([f"data set {name}", describe(name)] for name in datasets.list_names()),
    ]


def list_devices() -> list[list[str]]:
    """Return what jax would compute on."""
    from metarun import config, hardware

    devices = hardware.select(config.Accelerator())
    return [
        ["devices", ", ".join(f"{device.platform}:{device.id} {device.device_kind}" for device in devices)]
    ]


def run_smoke_test() -> list[str]:
    """Take ten steps of MAML on the sinusoid, saved and measured, in a folder that is removed again."""
    from metarun import config, experiment
    from metarun.cli import progress_display

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "smoke.yaml"
        file.write_text(SMOKE)
        started = time.perf_counter()
        with progress_display.show_preparation() as progress:
            experiment.train(config.load(file), Path(folder) / "run", False, ["doctor"], progress)
        return ["smoke run", f"10 steps in {time.perf_counter() - started:.1f} s, compilation included"]
