"""How many trials fit into the memory of the devices, by what the compiler lays out for their program.

Compiling is dear, but nothing is compiled twice: where all trials fit, their run finds the program in the cache.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from metarun import base, config, meshes
from metarun.assembly import Tasks
from metarun.progress import Progress
from metarun.stages import Stage
from metarun.training import cost, loop
from metarun.training.stage_run import StageRun

SHARE = 0.8  # of the free memory: the process and the measurement need some, too
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
UNLIMITED = 2**60  # bytes; a system that does not say how much memory it has


def count_trials_that_fit(
    run_config: config.RunConfig,
    devices: list[jax.Device],
    tasks: Tasks,
    stages: Sequence[Stage],
    memory: int | None = None,
) -> int:
    """Return how many of the replicas of a run fit side by side; at least 1.

    The need is that of the data, once, and of each replica, which the compiler's layout for all of them tells.

    Args:
      memory: bytes that a device has for the program; None: what the system says.
    """
    session = cost.open_session(run_config, devices, tasks, Progress())
    fitting = run_config.replicas
    earlier: dict[str, base.Weights] = {}
    for stage in stages:
        stage_run = StageRun(session, stage, earlier)
        shapes = jax.eval_shape(stage_run.make_start, {}, *stage_run.list_start_arguments())[0]
        fitting = min(fitting, count_fitting(stage_run, shapes, memory))
        # Only shapes matter, so zeros stand in for trained weights.
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.weights)
        earlier = earlier | {stage.name: zeros}
    return fitting


def count_fitting(stage_run: StageRun, shapes: loop.State, memory: int | None) -> int:
    """Return how many replicas of a stage fit; at least 1.

    Args:
      shapes: of the state.
    """
    mesh, replicas = stage_run.loop.mesh, stage_run.stage.axes.get("replica", 1)
    split = meshes.has_replicas(mesh) and meshes.is_even(replicas, mesh)
    sharding = NamedSharding(mesh, PartitionSpec(meshes.REPLICA) if split else PartitionSpec())

    def place(leaf) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    state = jax.tree.map(place, shapes)
    keys = meshes.share_out(stage_run.stage.make_keys(), mesh)
    program = loop.compile_program(stage_run.loop, stage_run.data, keys, state)
    layout = cost.read_memory(program.compiled)
    if layout is None:
        return replicas
    shared = sum(leaf.nbytes for leaf in jax.tree.leaves(stage_run.data))
    rows = mesh.shape[meshes.REPLICA] if meshes.has_replicas(mesh) else 1
    own = max(layout.total - shared, 1) / -(-replicas // rows)
    room = find_memory(mesh.devices.flat[0], mesh.size) if memory is None else memory
    return max(1, min(replicas, rows * int((room - shared) / own)))


def find_memory(device: jax.Device, sharing: int) -> int:
    """Return the bytes that a program may take on a device.

    Args:
      sharing: how many devices share the memory of the machine, if the device is a CPU.
    """
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(SHARE * stats["bytes_limit"])
    return int(SHARE * read_free_memory() / sharing)


def read_free_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Return the free bytes of the machine, or of the container if it may take less."""
    free = [UNLIMITED]
    try:
        lines = [line.split() for line in meminfo.read_text().splitlines()]
        free += [int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"]
    except (OSError, ValueError, IndexError):
        pass
    try:
        limit, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
        free += [] if limit == "max" else [max(int(limit) - int(used), 0)]
    except (OSError, ValueError):
        pass
    return min(free)
