"""Which devices a run uses, at which precision, and how the tasks of a step are laid over them."""

import contextlib
import functools
import logging
import os
import warnings
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metarun import errors, folders, gpu_settings
from metarun.base import PyTree
from metarun.config import Accelerator

TASK = "task"  # the axis of every mesh
REPLICA = "replica"  # the axis before it, if there are replicas

# What the words of accelerator.precision mean to jax on a GPU, if they are not its own: its "bfloat16" is
# tensorfloat32 there, as its "tensorfloat32" is, so that the algorithm of the products must be named.
GPU_PRECISIONS = {"bfloat16": "BF16_BF16_F32"}

logger = logging.getLogger("metarun")


def select(accelerator: Accelerator) -> list[jax.Device]:
    """Return the devices to compute on. Call it before any array exists: it sets what jax reads only once.

    Without an accelerator each core is a device. A stage uses one of them or all: see `make_mesh`.

    Raises:
      AcceleratorError: the platform is missing, or has fewer devices than the config asks for.
    """
    if accelerator.platform == "cpu":
        jax.config.update("jax_platforms", "cpu")  # else a GPU would be started, and its memory taken
    set_variables(accelerator)
    use_compilation_cache()
    use_cores(accelerator.devices)
    platform = None if accelerator.platform == "auto" else accelerator.platform
    try:
        devices = jax.local_devices(backend=platform)
    except RuntimeError as error:
        raise errors.AcceleratorError(
            f"there is no {accelerator.platform} here that jax can use",
            "accelerator.platform",
            "use accelerator.platform=auto, or install the extra for it: cuda12, cuda13 or tpu",
        ) from error
    jax.config.update(
        "jax_default_matmul_precision", name_precision(devices[0].platform, accelerator.precision)
    )
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


def select_own(devices: list[jax.Device]) -> jax.Device:
    """Return the first device of this process."""
    return next(device for device in devices if device.process_index == jax.process_index())


def name_precision(platform: str, precision: str) -> str:
    """Return jax's name for a precision on a platform. A CPU refuses some names, and computes in float32 for all."""
    if platform == "cpu":
        return "float32"
    return GPU_PRECISIONS.get(precision, precision) if platform == "gpu" else precision


def set_variables(accelerator: Accelerator) -> None:
    """Set what a GPU is started with, beside what the environment says already; it stays for this process.

    Raises:
      AcceleratorError: the environment has a variable of jax that cannot be read.
    """
    fraction, deterministic = accelerator.memory_fraction, accelerator.deterministic
    if accelerator.platform in ("cpu", "tpu"):
        return
    try:
        wanted = gpu_settings.compose_variables(fraction, deterministic, os.environ)
    except (OSError, ValueError) as error:
        raise errors.AcceleratorError(
            f"jax's variables cannot be read: {error}",
            f"{gpu_settings.MEMORY}, {gpu_settings.OLD_MEMORY} or {gpu_settings.FLAGS}",
            "unset them, or give a number between 0 and 1, and flags or the path of a file with flags",
        ) from error
    changes = {name: value for name, value in wanted.items() if os.environ.get(name) != value}
    if changes and has_begun():
        logger.warning("jax has begun: %s come too late", " and ".join(changes))
        return
    os.environ.update(changes)
    if fraction is not None and fraction != gpu_settings.read_memory_fraction(os.environ):
        logger.warning("the environment has another share of the memory than accelerator.memory_fraction")
    if deterministic and not gpu_settings.is_deterministic(os.environ):
        logger.warning("XLA_FLAGS overrule accelerator.deterministic")


def has_begun() -> bool:
    """Return whether jax has started its devices: it then refuses a change of their number."""
    count: int = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    try:
        jax.config.update("jax_num_cpu_devices", count + 1)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", count)
    return False


def describe(devices: list[jax.Device]) -> dict[str, Any]:
    """Return what a run computes on, and how: what is in effect, which may be less than what the config asks for."""
    name = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    on_gpu = devices[0].platform == "gpu"
    return {
        "platform": devices[0].platform,
        "devices": [device.device_kind for device in devices],
        "precision": next((word for word, other in GPU_PRECISIONS.items() if other == name), name),
        "memory_fraction": gpu_settings.read_memory_fraction(os.environ) if on_gpu else None,
        "deterministic": gpu_settings.is_deterministic(os.environ) if on_gpu else True,
    }


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


def use_cores(most: int | None) -> None:
    """Let jax see the cores as devices of their own, unless it has begun, or XLA_FLAGS say a number.

    Args:
      most: devices; None: all cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    has_flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    count = min(most or cores, cores)
    if count < 2 or has_flag or jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return
    with contextlib.suppress(RuntimeError):  # jax has begun: it keeps the devices that it has
        jax.config.update("jax_num_cpu_devices", count)


def has_replicas(mesh: Mesh) -> bool:
    """Return whether the replicas of a run are shared out over the mesh."""
    return REPLICA in mesh.axis_names


def make_mesh(
    devices: list[jax.Device], tasks_per_step: int, replicas: int, share_tasks: bool = True
) -> Mesh:
    """Make the mesh of a stage: over its tasks, and if the run has several replicas, first over those.

    Neither need share out evenly: see `choose_shape`.

    Args:
      share_tasks: whether several cores may share the tasks of a step. Devices of other kinds, or of several
        processes, always do.
    """
    same_process = all(device.process_index == devices[0].process_index for device in devices)
    share_tasks = share_tasks or devices[0].platform != "cpu" or not same_process
    rows, columns = choose_shape(len(devices), tasks_per_step, replicas, share_tasks)
    shape, names = ((columns,), (TASK,)) if replicas == 1 else ((rows, columns), (REPLICA, TASK))
    kinds = (jax.sharding.AxisType.Auto,) * len(names)
    return jax.make_mesh(shape, names, kinds, devices=devices[: rows * columns])


def choose_shape(devices: int, tasks_per_step: int, replicas: int, share_tasks: bool) -> tuple[int, int]:
    """Return over how many devices replicas are laid, and over how many the tasks of each replica.

    The device with the most to do has the least that is possible. If several shapes allow that, few replicas are
    computed twice to fill the last row; and more rows are better than more columns, because replicas never wait for
    each other.
    """

    def judge(shape: tuple[int, int]) -> tuple[int, int, int]:
        rows, columns = shape
        each = -(-replicas // rows)
        return each * -(-tasks_per_step // columns), rows * each - replicas, -rows

    rows = range(1, min(devices, replicas) + 1)
    return min(((row, min(devices // row, tasks_per_step) if share_tasks else 1) for row in rows), key=judge)


def make_task_mesh(devices: list[jax.Device], tasks_per_step: int) -> Mesh:
    """Make a mesh with the one axis `task`, over all devices if there are as many tasks."""
    return make_mesh(devices, tasks_per_step, 1)


def average(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return the mean over the devices that share the tasks. Each of them calls it, inside a compiled program.

    On CPUs the terms are added in the order of the devices: each device adds one part of all terms, and the sums are
    gathered. So several processes give the bits of one process with as many devices, which a sum by Gloo, in an order
    of its own, would not; and both run the same program, so that the compiler rounds alike.
    """
    count = mesh.shape[TASK]
    if count == 1:
        return tree
    if mesh.devices.flat[0].platform != "cpu":
        return jax.lax.pmean(tree, TASK)
    vector, restore = jax.flatten_util.ravel_pytree(tree)
    part = -(-vector.size // count)
    parts = jnp.pad(vector, (0, part * count - vector.size)).reshape(count, part)
    terms = jax.lax.all_to_all(parts, TASK, 0, 0)
    total = functools.reduce(jnp.add, [terms[device] for device in range(count)])
    return restore(jax.lax.all_gather(total, TASK, tiled=True)[: vector.size] / count)


def is_even(replicas: int, mesh: Mesh) -> bool:
    """Return whether every row of the mesh has as many replicas as the others."""
    return replicas % mesh.shape[REPLICA] == 0


def lay_out_chunk(mesh: Mesh, learners: tuple[int, ...]):
    """Return the shardings of (state, metrics, steps taken, finite) after a chunk; None: as the program lays them out.

    Args:
      learners: the sizes of the leading axes of the state.

    Every process reads the metrics, so that the others of replicas are sent to it.
    """
    replicated = NamedSharding(mesh, PartitionSpec())
    if not has_replicas(mesh) or not is_even(learners[0], mesh):
        return replicated
    return (NamedSharding(mesh, PartitionSpec(REPLICA)), *[replicated] * 3) if mesh.is_multi_process else None


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copy the whole tree to every device of the mesh."""
    return put(tree, NamedSharding(mesh, PartitionSpec()))


def share_out(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put leaves [replica, ...] on the devices that compute them.

    Without replicas, or if they do not share out evenly, every device gets a copy of the whole tree.
    """
    leaves = jax.tree.leaves(tree)
    split = bool(leaves) and has_replicas(mesh) and is_even(leaves[0].shape[0], mesh)
    return put(tree, NamedSharding(mesh, PartitionSpec(REPLICA) if split else PartitionSpec()))


def put(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Lay a tree out over the devices of a mesh, which may belong to several processes.

    Every process has all of the tree, or has it laid out over the same devices already.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put_leaf(leaf):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.jit(jnp.copy, out_shardings=sharding)(leaf)
        array = jnp.asarray(leaf)
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            data = put_leaf(jax.random.key_data(array))
            return jax.jit(jax.random.wrap_key_data, out_shardings=sharding)(data)
        # jax.device_put would gather the array from all processes, to compare them.
        content = np.asarray(array)
        return jax.make_array_from_callback(content.shape, sharding, lambda index: content[index])

    return jax.tree.map(put_leaf, tree)
