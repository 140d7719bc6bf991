"""The gradient of a step where the tasks do not share out evenly over devices and chunks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import processes
from helpers.loops import make_key
from metarun.training.gradient import Shares, average_chunks, share_tasks
from metarun.training.loop import make_task_keys


@pytest.mark.parametrize(
    ("tasks", "devices", "task_chunk", "shape"),
    [
        (25, 8, None, (8, 1, 4)),
        (32, 2, 4, (2, 4, 4)),
        (25, 2, 5, (2, 3, 5)),
        (5, 1, 5, (1, 1, 5)),
        (6, 4, 3, (4, 1, 2)),
        (10, 2, 2, (2, 3, 2)),
    ],
)
def test_every_task_has_a_place_and_no_chunk_is_larger_than_asked_for(tasks, devices, task_chunk, shape):
    keys = make_task_keys(make_key(), 0, jnp.arange(tasks))
    shares = share_tasks(keys, devices, task_chunk)
    assert shares.keys.shape == shape
    weights = np.ones(shape) if shares.weights is None else np.asarray(shares.weights)
    counted = np.asarray(jax.random.key_data(shares.keys))[weights > 0]
    np.testing.assert_array_equal(counted, jax.random.key_data(keys))
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-6)


def test_the_mean_over_chunks_with_weights_is_the_mean_over_the_tasks():
    def mean_of_place(tasks: Shares):
        numbers = (
            jax.random.uniform(tasks.keys[0])
            if tasks.keys.ndim == 0
            else jax.vmap(jax.random.uniform)(tasks.keys)
        )
        return (numbers if tasks.weights is None else numbers * tasks.weights).mean()

    keys = make_task_keys(make_key(), 0, jnp.arange(7))
    expected = jax.vmap(jax.random.uniform)(keys).mean()
    for task_chunk in (1, 2, 3, None):
        shares = jax.tree.map(lambda leaf: leaf[0], share_tasks(keys, 1, task_chunk))
        np.testing.assert_allclose(average_chunks(mean_of_place, shares), expected, rtol=1e-6)


PROGRAM = """
import json
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from helpers.loops import make_key, make_loop, start_state
from metarun import meshes
from metarun.training import loop as outer_loop
from metarun.training.gradient import make_gradient

loop, key = make_loop(), make_key()
weights = start_state(loop, (), key).weights
wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights)
keys = outer_loop.make_task_keys(key, 0, jnp.arange(5))


def run(devices, task_chunk=None):
    mesh = meshes.make_mesh(jax.devices()[:devices], 5, 1)
    gradient = jax.jit(make_gradient(loop.algorithm, loop.sample, mesh, task_chunk))
    values = gradient(*meshes.replicate((wide, (), keys), mesh), 0.0)
    return [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(values)]


print(json.dumps({"alone": run(1), "two": run(2), "four": run(4), "chunks": run(2, 2)}))
"""


@pytest.mark.slow
def test_five_tasks_on_two_or_four_devices_have_the_gradient_of_one_device():
    values = json.loads(processes.run_code(PROGRAM, devices=4))
    for name in ("two", "four", "chunks"):
        for ours, alone in zip(values[name], values["alone"], strict=True):
            np.testing.assert_allclose(ours, alone, rtol=1e-12, atol=1e-14, err_msg=name)


REPLICAS = """
import dataclasses, json
import jax
import numpy as np
from helpers.loops import FAMILY, make_loop, make_stage
from metarun import meshes
from metarun.training import loop as outer_loop
from metarun.training.loop import State
from metarun.training.first_memory import make_memory

stage = dataclasses.replace(make_stage(), axes={"replica": 3})
keys = stage.make_keys()
weights = jax.jit(stage.make_start(FAMILY.sample))((), keys, {})
state = State(weights, jax.jit(make_memory(make_loop().optimizer, 1))(weights))


def run(devices):
    mesh = meshes.make_mesh(jax.devices()[:devices], 4, 3, share_tasks=False)
    loop = make_loop()._replace(mesh=mesh)
    here = meshes.share_out(jax.device_get(state), mesh)
    program = outer_loop.compile_program(loop, (), meshes.share_out(keys, mesh), here)
    for first in (0, 2):
        here, metrics, finite = program.run(here, first, 2)
    leaves = [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(here.weights)]
    facts = {"rows": mesh.shape["replica"], "loss": metrics["loss"].tolist(), "finite": finite.tolist()}
    return facts | {"weights": leaves}


print(json.dumps([run(1), run(2)]))
"""


@pytest.mark.slow
def test_three_replicas_on_two_devices_are_three_replicas_on_one():
    alone, together = json.loads(processes.run_code(REPLICAS, devices=2))
    assert (alone["rows"], together["rows"]) == (1, 2)
    assert together["finite"] == [True] * 3
    np.testing.assert_allclose(together["loss"], alone["loss"], rtol=1e-5)
    for ours, theirs in zip(together["weights"], alone["weights"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
