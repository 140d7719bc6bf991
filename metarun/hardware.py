"""Which devices a run uses, and at which precision."""

import contextlib
import logging
import os
from typing import Any

import jax

from metarun import compilation_cache, errors, gpu_settings
from metarun.config import Accelerator

# What the words of accelerator.precision mean to jax on a GPU, if they are not its own: its "bfloat16" is
# tensorfloat32 there, as its "tensorfloat32" is, so that the algorithm of the products must be named.
GPU_PRECISIONS = {"bfloat16": "BF16_BF16_F32"}

logger = logging.getLogger("metarun")


def select(accelerator: Accelerator) -> list[jax.Device]:
    """Return the devices to compute on. Call it before any array exists: it sets what jax reads only once.

    Without an accelerator each core is a device. A stage uses one of them or all: see `meshes.make_mesh`.

    Raises:
      AcceleratorError: the platform is missing, or has fewer devices than the config asks for.
    """
    if accelerator.platform == "cpu":
        jax.config.update("jax_platforms", "cpu")  # else a GPU would be started, and its memory taken
    set_variables(accelerator)
    compilation_cache.use_private_folder()
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
