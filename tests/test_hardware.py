"""Several devices: the same tasks, the same numbers but for the order of sums. Devices are simulated on the CPU."""

import json
import logging
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import processes, runs
from metarun import errors, hardware
from metarun.config import Accelerator
from metarun.models import _convolution

PROGRAM = """
import json, sys
import jax, numpy as np
from metarun import hardware, meshes
from metarun.training import loop as outer_loop
from metarun.config import Accelerator, Training
from helpers.loops import FAMILY, make_key, make_loop, start_state
from jax.sharding import PartitionSpec

key = make_key()
start = jax.device_get(start_state(make_loop(Training(steps=20, tasks_per_step=16)), (), key))


def run_on(devices, task_chunk):
    config = Training(steps=20, tasks_per_step=16, task_chunk=task_chunk or None)
    chosen = hardware.select(Accelerator(platform="cpu", devices=devices))
    loop = make_loop(config)._replace(mesh=meshes.make_mesh(chosen, 16, 1))
    state = meshes.replicate(start, loop.mesh)
    program = outer_loop.compile_program(loop, (), meshes.replicate(key, loop.mesh), state)
    chunk = program.run(state, 0, 20)
    sample = jax.jit(jax.shard_map(
        lambda keys: jax.vmap(lambda k: FAMILY.sample((), jax.random.split(k)[0]))(keys),
        mesh=loop.mesh, in_specs=PartitionSpec("task"), out_specs=PartitionSpec("task")))
    episodes = sample(jax.device_get(outer_loop.make_task_keys(key, 7, jax.numpy.arange(16))))
    return {
        "devices": loop.mesh.size,
        "weights": [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(chunk.state.weights)],
        "episodes": [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(episodes)],
        "loss": chunk.metrics["loss"].tolist(),
    }


print(json.dumps([run_on(*setting) for setting in json.loads(sys.argv[1])]))
"""
SHARED = [(2, 0), (8, 0), (2, 4)]  # devices, tasks that each computes at once; 0: all


@pytest.fixture(scope="module")
def runs_on_devices() -> dict[tuple[int, int], dict]:
    """20 steps of 16 tasks by the settings of `SHARED` and by one device, in a process that has eight."""
    settings = [(1, 0), *SHARED]
    answers = processes.run_code(PROGRAM, json.dumps(settings), devices=8)
    return dict(zip(settings, json.loads(answers), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "task_chunk"), SHARED)
def test_devices_share_the_tasks_and_reach_the_same_parameters(runs_on_devices, devices, task_chunk):
    alone, together = runs_on_devices[1, 0], runs_on_devices[devices, task_chunk]
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


WORDS = ("float32", "tensorfloat32", "bfloat16")


@pytest.fixture
def precision_as_before():
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.mark.parametrize("precision", WORDS)
def test_a_cpu_computes_in_float32_and_says_so(precision_as_before, caplog, precision):
    """jax refuses the name of an algorithm there, when it lowers the first product."""
    with caplog.at_level(logging.WARNING, "metarun"):
        devices = hardware.select(Accelerator(platform="cpu", precision=precision))
    assert any("float32" in record.message for record in caplog.records) == (precision != "float32")
    assert hardware.describe(devices)["precision"] == "float32"
    left = np.linspace(1, 2, 9, dtype=np.float32).reshape(3, 3)
    np.testing.assert_allclose(jnp.matmul(left, left.T), left.astype(float) @ left.T.astype(float), rtol=1e-6)


def lower_for_gpu(precision: str, form: str) -> str:
    """The program of the gradient of a convolution, for one kernel for each of two tasks, as a GPU would get it."""
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((2, 1, 4, 4, 2), (2, 3, 3, 2, 2))]

    def loss(inputs, kernels):
        return jnp.sum(
            jnp.sin(jax.vmap(lambda *pair: _convolution.convolve(*pair, 2, form))(inputs, kernels))
        )

    with jax.default_matmul_precision(hardware.name_precision("gpu", precision)):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(*shapes)
        return traced.lower(lowering_platforms=("cuda",)).as_text()


def test_bfloat16_on_a_gpu_names_the_algorithm_of_every_product():
    products = [line for line in lower_for_gpu("bfloat16", "products").splitlines() if "dot_general" in line]
    assert len(products) == 3
    assert all("lhs_precision_type = bf16" in line and "accumulation_type = f32" in line for line in products)
    assert hardware.name_precision("tpu", "bfloat16") == "bfloat16"  # a TPU keeps jax's word


def test_bfloat16_on_a_gpu_rounds_what_a_native_convolution_takes():
    lines = lower_for_gpu("bfloat16", "native").splitlines()
    convolutions = [line for line in lines if "stablehlo.convolution" in line]
    assert len(convolutions) == 3
    assert all("xbf16>, tensor<" in line.rpartition(" : (")[2] for line in convolutions)


@pytest.mark.parametrize("form", ["products", "native"])
def test_the_three_precisions_are_three_programs_on_a_gpu(form):
    programs = {precision: lower_for_gpu(precision, form) for precision in WORDS}
    assert len(set(programs.values())) == 3
    assert "HIGHEST" in programs["float32"] and "HIGHEST" not in programs["tensorfloat32"]
    assert "bf16" not in programs["float32"] + programs["tensorfloat32"]


SETTINGS = """
import json, os
from metarun import gpu_settings, hardware
from metarun.config import Accelerator
hardware.select(Accelerator(deterministic=True, memory_fraction=0.25))
import jax
print(jax.jit(lambda: 1 + 1)())
print(json.dumps({name: os.environ.get(name) for name in (gpu_settings.FLAGS, gpu_settings.MEMORY)}))
"""


def test_jax_starts_with_the_flags_of_the_config_beside_those_of_the_user():
    """jax ends a process whose XLA_FLAGS it does not know: it knows these, without a GPU too."""
    answer, variables = processes.run_code(SETTINGS, flags="--xla_dump_max_hlo_modules=3").splitlines()
    flags = json.loads(variables)["XLA_FLAGS"].split()
    assert answer == "2"
    assert {"--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0"} < set(flags)
    assert {"--xla_dump_max_hlo_modules=3", "--xla_force_host_platform_device_count=1"} < set(flags)
    assert json.loads(variables)["XLA_CLIENT_MEM_FRACTION"] == "0.25"


def test_flags_that_come_after_the_start_of_jax_are_not_claimed(monkeypatch, caplog):
    hardware.select(Accelerator())
    for name in ("XLA_FLAGS", "XLA_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)
    with caplog.at_level(logging.WARNING, "metarun"):
        hardware.set_variables(Accelerator(deterministic=True, memory_fraction=0.25))
    assert not {"XLA_FLAGS", "XLA_CLIENT_MEM_FRACTION"} & set(os.environ)
    assert "jax has begun" in caplog.text


def test_a_variable_that_jax_cannot_read_is_refused(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "half")
    with pytest.raises(errors.AcceleratorError, match="half"):
        hardware.set_variables(Accelerator(memory_fraction=0.5))


# Trains to the end in one process, or to its signal, or goes on: without what the process before has compiled.
RESUME = """
import os, sys
from pathlib import Path
from helpers import runs
from metarun import signals
from metarun.progress import Progress

TEXT = runs.SINGLE.replace("[8]", "[256, 256]").replace("cpu, devices: 1", sys.argv[2] + ", deterministic: true")

class Stopping(Progress):
    def advanced(self, stage, step, count, seconds, metrics):
        if step == 12 and sys.argv[3] == "stop":
            os.kill(os.getpid(), 15)

try:
    runs.train(Path(sys.argv[1]), TEXT, resume=sys.argv[3] == "resume", progress=Stopping())
except signals.Stopped:
    pass
"""


def has_gpu() -> bool:
    """Return whether an NVIDIA driver answers here."""
    driver = shutil.which("nvidia-smi")
    return driver is not None and subprocess.run([driver], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_gpu(), reason="there is no GPU here")
def test_a_deterministic_run_on_a_gpu_resumes_bit_for_bit_without_the_compiled_programs(
    monkeypatch, tmp_path
):
    assert_resumes_in_new_processes(monkeypatch, tmp_path, "gpu")


def assert_resumes_in_new_processes(monkeypatch, folder, platform: str) -> None:
    for index, (run, mode) in enumerate([("whole", "run"), ("stopped", "stop"), ("stopped", "resume")]):
        monkeypatch.setenv("METARUN_CACHE", str(folder / f"cache-{index}"))
        monkeypatch.setattr(processes, "environment", make_environment(platform, processes.environment))
        processes.run_code(RESUME, folder / run / "run", platform, mode, flags="")
        monkeypatch.undo()
    runs.assert_same_run(folder / "stopped" / "run", folder / "whole" / "run")
    assert runs.read_json(folder / "whole" / "run" / "result.json")["accelerator"]["platform"] == platform


def make_environment(platform: str, make):
    """Make what `processes.environment` is, for processes that may use the GPU."""
    names = {"gpu": "cuda", "cpu": "cpu"}
    return lambda *arguments: make(*arguments) | {"JAX_PLATFORMS": names[platform]}
