"""The gradient of one outer step: the mean over tasks that are shared out over devices, a few at a time on each."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Key, Num, PRNGKeyArray

from metarun import base, meshes
from metarun.base import PyTree

Sample = Callable[[PyTree, PRNGKeyArray], base.Episode]  # of a task family


class Shares(NamedTuple):
    """Tasks of a step as they are computed: [device, chunk, task], or the same without the leading axes."""

    keys: Key[Array, "*share"]
    # What each task counts in the mean, 1 on average; None: all count the same.
    weights: Float[Array, "*share"] | None


def make_gradient(
    algorithm: base.Algorithm, sample: Sample, mesh: Mesh, task_chunk: int | str | None
) -> Callable:
    """Make (weights, data, task keys, progress) -> (gradient, metrics), both means over the tasks.

    The tasks are shared out over the mesh; each device takes its own `task_chunk` at a time. With replicas the whole
    loop is laid over the mesh, and the gradient is called on each device, with all task keys of the step.
    """
    differentiate = jax.grad(make_mean_loss(algorithm, sample), has_aux=True)
    devices, everywhere = mesh.shape[meshes.TASK], PartitionSpec()

    def average(weights: base.Weights, data: PyTree, shares: Shares, progress):
        """Average the tasks of one device, [1, chunk, task]."""

        def differentiate_chunk(chunk: Shares):
            return differentiate(weights.trained, weights.frozen, data, chunk, progress)

        return average_chunks(differentiate_chunk, jax.tree.map(lambda leaf: leaf[0], shares))

    def average_with_others(weights: base.Weights, data: PyTree, shares: Shares, progress):
        return meshes.average(average(weights, data, shares, progress), mesh)

    def average_own(weights: base.Weights, data: PyTree, shares: Shares, progress):
        place = jax.lax.axis_index(meshes.TASK)
        own = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, place, 1), shares)
        return average_with_others(weights, data, own, progress)

    if devices == 1:
        gradient = average
    elif meshes.has_replicas(mesh):
        gradient = average_own
    else:
        gradient = jax.shard_map(
            average_with_others,
            mesh=mesh,
            in_specs=(everywhere, everywhere, PartitionSpec(meshes.TASK), everywhere),
            out_specs=everywhere,
            check_vma=False,
        )

    def share_and_average(weights: base.Weights, data: PyTree, keys: Key[Array, "task"], progress):
        return gradient(weights, data, share_tasks(keys, devices, task_chunk), progress)

    return share_and_average


def share_tasks(keys: Key[Array, "task"], devices: int, task_chunk: int | str | None) -> Shares:
    """Share out the tasks of a step over devices and chunks, [device, chunk, task].

    Where they do not share out evenly, the first tasks stand in for those that lack, with a weight of zero.
    """
    tasks = keys.shape[0]
    share = -(-tasks // devices)
    at_once = task_chunk if isinstance(task_chunk, int) else share
    chunks = -(-share // at_once)
    shape = (devices, chunks, -(-share // chunks))
    places = math.prod(shape)
    if places == tasks:
        return Shares(keys.reshape(shape), None)
    places_of_tasks = jnp.arange(places)
    weights = jnp.where(places_of_tasks < tasks, places / tasks, 0.0)  # their mean is 1
    return Shares(keys[places_of_tasks % tasks].reshape(shape), weights.reshape(shape))


def make_mean_loss(algorithm: base.Algorithm, sample: Sample) -> Callable:
    """Make (trained, frozen, data, tasks, progress) -> (mean loss, mean metrics) of freshly sampled tasks."""

    def mean_loss(trained: PyTree, frozen: PyTree, data: PyTree, tasks: Shares, progress):
        def measure_task(key):
            sample_key, loss_key = jax.random.split(key)
            episode = sample(data, sample_key)
            return algorithm.loss(base.Weights(trained, frozen), episode, loss_key, progress)

        def average(values: Num[Array, "task"]):
            return (values if tasks.weights is None else values * tasks.weights).mean()

        losses, metrics = jax.vmap(measure_task)(tasks.keys)
        return average(losses), jax.tree.map(average, metrics | {"loss": losses})

    return mean_loss


def average_chunks(differentiate: Callable, shares: Shares) -> PyTree:
    """Return what `differentiate` gives for all chunks, a mean over their tasks, from one chunk at a time."""
    chunks = shares.keys.shape[0]
    first = jax.tree.map(lambda leaf: leaf[0], shares)
    if chunks == 1:
        return differentiate(first)
    differentiate = jax.jit(differentiate, inline=True)  # traced once, for its shapes and for the loop
    shapes = jax.eval_shape(differentiate, first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total, chunk: Shares):
        return jax.tree.map(jnp.add, total, differentiate(chunk)), None

    total, _ = jax.lax.scan(add, zeros, shares)
    return jax.tree.map(lambda leaf: leaf / chunks, total)
