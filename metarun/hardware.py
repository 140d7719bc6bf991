"""Which devices a run uses, at which precision, and how the tasks of a step are laid over them."""

import contextlib
import logging
import os
import warnings

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metarun import errors, folders
from metarun.base import PyTree
from metarun.config import Accelerator

TASK = "task"  # the axis of every mesh
REPLICA = "replica"  # the axis before it, if there are replicas

logger = logging.getLogger("metarun")


def select(accelerator: Accelerator, replicas: int = 1) -> list[jax.Device]:
    """Return the devices to compute on. Call it before any array exists: it sets what jax reads only once.

    Args:
      replicas: of the run. Without an accelerator, several replicas share out the cores: each core is a device then.

    Raises:
      AcceleratorError: the platform is missing, or has fewer devices than the config asks for.
    """
    if accelerator.platform == "cpu":
        jax.config.update("jax_platforms", "cpu")  # else a GPU would be started, and its memory taken
    jax.config.update("jax_default_matmul_precision", accelerator.precision)
    use_compilation_cache()
    use_cores(min(accelerator.devices or replicas, replicas))
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
    count = accelerator.devices or len(devices)
    if count > len(devices):
        raise errors.AcceleratorError(
            f"{count} devices were asked for and there are {len(devices)}",
            "accelerator.devices",
            f"use at most {len(devices)}, or null for all",
        )
    return devices[:count]


def use_compilation_cache() -> None:
    """Keep compiled programs in a private folder, so that the next run of the same config starts at once."""
    folder = folders.cache_root() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        logger.warning("no compilation cache: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")


def use_cores(count: int) -> None:
    """Let jax see up to `count` cores as devices of their own, unless it has begun, or XLA_FLAGS say a number."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    has_flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if min(count, cores) < 2 or has_flag or jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return
    with contextlib.suppress(RuntimeError):  # jax has begun: it keeps the devices that it has
        jax.config.update("jax_num_cpu_devices", min(count, cores))


def has_replicas(mesh: Mesh) -> bool:
    """Return whether the replicas of a run are shared out over the mesh."""
    return REPLICA in mesh.axis_names


def make_mesh(devices: list[jax.Device], tasks_per_step: int, replicas: int) -> Mesh:
    """Make the mesh of a run: over its tasks, and if it has several replicas, first over those.

    Replicas come first because they never wait for each other.
    """
    if replicas == 1:
        return make_task_mesh(devices, tasks_per_step)
    rows = max(n for n in range(1, len(devices) + 1) if replicas % n == 0)
    columns = max(n for n in range(1, len(devices) // rows + 1) if tasks_per_step % n == 0)
    if rows * columns < len(devices):
        logger.warning(
            "%d of %d devices are used: %d replicas of %d tasks a step do not share out",
            *(rows * columns, len(devices), replicas, tasks_per_step),
        )
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((rows, columns), (REPLICA, TASK), kinds, devices=devices[: rows * columns])


def make_task_mesh(devices: list[jax.Device], tasks_per_step: int) -> Mesh:
    """Make a mesh with the one axis `task`, over as many devices as share the tasks evenly."""
    count = max(n for n in range(1, len(devices) + 1) if tasks_per_step % n == 0)
    if count < len(devices):
        logger.warning(
            "%d of %d devices are used: %d tasks a step do not share out", count, len(devices), tasks_per_step
        )
    return jax.make_mesh((count,), (TASK,), (jax.sharding.AxisType.Auto,), devices=devices[:count])


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copy the whole tree to every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def share_out(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put leaves [replica, ...] on the devices that compute them; without replicas, copy the tree to every device."""
    spec = PartitionSpec(REPLICA) if has_replicas(mesh) else PartitionSpec()
    return jax.device_put(tree, NamedSharding(mesh, spec))
