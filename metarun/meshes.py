"""How the replicas of a run and the tasks of a step are laid over devices, and how what they compute comes together."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metarun.base import PyTree

TASK = "task"  # the axis of every mesh
REPLICA = "replica"  # the axis before it, if there are replicas


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
