"""How many tasks are computed at once, where the config leaves it open."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import yaml

from helpers import runs
from metarun import assembly, config
from metarun.training import task_chunks
from metarun.training.task_chunks import TRACED_TASKS, ArrayBytes

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A function that makes the machine have a second-level cache of so many bytes."""

    def set_size(text: str) -> None:
        for index, (level, kind, size) in enumerate((("1", "Data", "48K"), ("2", "Unified", text))):
            folder = tmp_path / "cpu7/cache" / f"index{index}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in (("level", level), ("type", kind), ("size", size)):
                (folder / name).write_text(f"{content}\n")

    monkeypatch.setattr(task_chunks, "CACHES", tmp_path)
    monkeypatch.setattr(task_chunks.os, "sched_getaffinity", lambda process: {7, 9}, raising=False)
    return set_size


@pytest.mark.parametrize(("text", "size"), [("1024K", 2**20), ("2M", 2**21), ("512", 512), ("?", 2**20)])
def test_the_cache_of_a_core_is_read_from_the_system(cache, text, size):
    cache(text)
    assert task_chunks.read_cache_bytes() == size


def test_without_a_word_of_the_system_a_cache_has_a_mebibyte(monkeypatch, tmp_path):
    monkeypatch.setattr(task_chunks, "CACHES", tmp_path)
    assert task_chunks.read_cache_bytes() == 2**20


def test_only_arrays_with_an_entry_for_each_task_count():
    def compute(weights, inputs):
        hidden = jax.vmap(lambda row: jnp.tanh(row @ weights))(inputs)  # 5 floats a task, twice
        scanned = jax.lax.scan(lambda total, row: (total + row, None), jnp.zeros(5), hidden)[0]
        return scanned @ (weights.T @ weights)  # for no task

    arguments = (jax.ShapeDtypeStruct((3, 5), "float32"), jax.ShapeDtypeStruct((TRACED_TASKS, 3), "float32"))
    assert list(task_chunks.list_task_bytes(jax.make_jaxpr(compute)(*arguments).jaxpr)) == [20, 20]


@pytest.mark.parametrize(
    ("tasks", "largest", "chunk"),
    [(25, 6400, 25), (32, 564480, 1), (32, 300_000, 2), (32, 2**16, 16), (8, 2**30, 1)],
)
def test_a_cpu_takes_as_many_tasks_as_fit_into_the_cache(cache, tasks, largest, chunk):
    cache("1024K")
    assert task_chunks.choose(tasks, ArrayBytes(largest, 99 * largest), "cpu") == chunk


def test_another_device_takes_all_tasks_unless_its_memory_is_too_small():
    arrays = ArrayBytes(10, 100)
    assert task_chunks.choose(32, arrays, "gpu") is None
    assert task_chunks.choose(32, arrays, "gpu", memory=3200) is None
    assert task_chunks.choose(32, arrays, "gpu", memory=3199) == 16


@pytest.mark.parametrize(
    ("file", "least", "most"), [("sinusoid/maml", 25, 25), ("omniglot/5way-1shot/maml", 1, 4)]
)
def test_the_sinusoid_stays_whole_and_omniglot_does_not(cache, file, least, most):
    cache("1024K")
    run_config = config.load(CONFIGS / f"{file}.yaml")
    tasks = assembly.outline_tasks(run_config)
    stages = assembly.build_stages(run_config, tasks.family.problem)
    shapes = {"maml": stages[0].trace_weights(tasks.family.sample, tasks.data["train"], {})}
    (settled,) = task_chunks.settle(stages, shapes, tasks, jax.devices("cpu")[0])
    chunk = settled.training.task_chunk
    assert isinstance(chunk, int)
    assert least <= chunk <= most
    assert settled.at_once == chunk
    assert settled.shares_tasks == (file != "sinusoid/maml")


def read_chunk(path: Path) -> object:
    return yaml.safe_load((path / "config.yaml").read_text())["training"]["task_chunk"]


def test_the_config_of_a_run_has_the_number(single):
    assert read_chunk(single) == 4


@pytest.mark.slow
def test_auto_is_the_number_that_it_stands_for_and_a_resumed_run_keeps_it(cache, tmp_path):
    """The arrays of a task have 256 bytes at most, those of the matrix between the hidden layers."""
    short = ("training.steps=4", "evaluation.every=null", "model.hidden=[8, 8]")
    cache("800")
    auto = runs.train(tmp_path / "auto", runs.SINGLE, *short)
    assert read_chunk(auto) == 2
    explicit = runs.train(tmp_path / "explicit", runs.SINGLE, *short, "training.task_chunk=2")
    runs.assert_same_run(auto, explicit)
    cache("1M")
    runs.train(auto, runs.SINGLE, *short, resume=True)
    assert read_chunk(auto) == 2
    runs.train(auto, runs.SINGLE, *short, "training.task_chunk=null", resume=True)
    assert read_chunk(auto) is None


def test_memory_without_a_limit_is_endless():
    assert task_chunks.find_divisor(12, math.inf, 2**40) == 12
