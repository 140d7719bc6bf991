"""Which devices a run uses, at which precision, and how the tasks of a step are laid over them."""

import logging
import warnings

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metarun import errors, locations
from metarun.base import PyTree
from metarun.config import Accelerator

TASK = "task"  # the one axis of the mesh

logger = logging.getLogger("metarun")


def select(accelerator: Accelerator) -> list[jax.Device]:
    """The devices to compute on. Call it before any array exists: it sets what jax reads only once.

    Raises:
      AcceleratorError: the platform is not there, or has fewer devices than were asked for.
    """
    if accelerator.platform == "cpu":
        jax.config.update("jax_platforms", "cpu")  # else a GPU would be started, and its memory taken
    jax.config.update("jax_default_matmul_precision", accelerator.precision)
    use_compilation_cache()
    platform = None if accelerator.platform == "auto" else accelerator.platform
    try:
        devices = jax.local_devices(backend=platform)
    except RuntimeError as error:
        raise errors.AcceleratorError(
            f"there is no {accelerator.platform} here that jax can use",
            "accelerator.platform",
            "use accelerator.platform=auto, or install the extra for it: cuda12, cuda13 or tpu",
        ) from error
    if devices[0].platform == "cpu" and accelerator.precision != "float32":
        logger.warning("a cpu computes in float32, whatever accelerator.precision says")
    wanted = accelerator.devices or len(devices)
    if wanted > len(devices):
        raise errors.AcceleratorError(
            f"{wanted} devices were asked for and there are {len(devices)}",
            "accelerator.devices",
            f"use at most {len(devices)}, or null for all",
        )
    return devices[:wanted]


def use_compilation_cache() -> None:
    """Keep compiled programs in a private folder, so that the next run of the same config starts at once."""
    folder = locations.cache_root() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        logger.warning("no compilation cache: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")


def task_mesh(devices: list[jax.Device], tasks_per_step: int) -> Mesh:
    """A mesh with the one axis `task`, over as many devices as share the tasks evenly."""
    count = max(n for n in range(1, len(devices) + 1) if tasks_per_step % n == 0)
    if count < len(devices):
        logger.warning(
            "%d of %d devices are used: %d tasks a step do not share out", count, len(devices), tasks_per_step
        )
    return jax.make_mesh((count,), (TASK,), (jax.sharding.AxisType.Auto,), devices=devices[:count])


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """A copy of the whole tree on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
