"""Several devices: the same tasks, the same numbers but for the order of sums. Devices are simulated on the CPU."""

import json

import numpy as np
import pytest

from helpers import processes
from metarun import errors, hardware
from metarun.config import Accelerator

PROGRAM = """
import json, sys
import jax, numpy as np
from metarun import hardware
from metarun.training import loop as outer_loop
from metarun.config import Accelerator, Training
from helpers.loops import FAMILY, make_key, make_loop, start_state
from jax.sharding import PartitionSpec

devices = hardware.select(Accelerator(platform="cpu"))
config = Training(steps=20, tasks_per_step=16, task_chunk=int(sys.argv[1]) or None)


loop = make_loop(config)._replace(mesh=hardware.make_task_mesh(devices, 16))
key = make_key()
state = hardware.replicate(start_state(loop, (), key), loop.mesh)
program = outer_loop.compile_program(loop, (), key, state)
chunk = program.run(state, 0, 20)

sample = jax.jit(jax.shard_map(
    lambda keys: jax.vmap(lambda k: FAMILY.sample((), jax.random.split(k)[0]))(keys),
    mesh=loop.mesh, in_specs=PartitionSpec("task"), out_specs=PartitionSpec("task")))
episodes = sample(outer_loop.make_task_keys(key, 7, jax.numpy.arange(16)))
print(json.dumps({
    "devices": loop.mesh.size,
    "weights": [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(chunk.state.weights)],
    "episodes": [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(episodes)],
    "loss": chunk.metrics["loss"].tolist(),
}))
"""


def run_on(devices: int, task_chunk: int = 0) -> dict:
    """Train 20 steps of 16 tasks in a process that has so many CPU devices."""
    return json.loads(processes.run_code(PROGRAM, task_chunk, devices=devices, flags=""))


@pytest.fixture(scope="module")
def alone() -> dict:
    return run_on(1)


@pytest.mark.parametrize(("devices", "task_chunk"), [(2, 0), (8, 0), (2, 4)])
def test_devices_share_the_tasks_and_reach_the_same_parameters(alone, devices, task_chunk):
    together = run_on(devices, task_chunk)
    assert together["devices"] == devices
    assert together["episodes"] == alone["episodes"]
    for left, right in zip(together["weights"], alone["weights"], strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-6)


def test_a_platform_that_is_not_there_is_refused_with_code_9():
    with pytest.raises(errors.AcceleratorError) as refusal:
        hardware.select(Accelerator(platform="tpu"))
    assert refusal.value.exit_code == 9


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(errors.AcceleratorError, match="4096 devices"):
        hardware.select(Accelerator(platform="cpu", devices=4096))
