"""The `--sampling` part of bench/bench.py: it draws what training draws, and all of it. Nothing is timed here."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarun import base, config
from metarun.config import Training
from metarun.tasks import sinusoid
from metarun.training import loop
from metarun.training.loop import Loop

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def bench_folder(monkeypatch):
    """Let a test import the files of bench/, which is no package."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])


def make_loop(family: base.TaskFamily) -> Loop:
    return Loop(None, family.sample, None, Training(steps=10, tasks_per_step=3), None)


def sum_draws(family: base.TaskFamily, key, first: int, steps: int) -> float:
    """Return the sum over every number of the tasks of some training steps."""

    @jax.jit
    @jax.vmap
    def draw(step):
        keys = loop.make_task_keys(key, step, jnp.arange(3))
        return jax.vmap(lambda task_key: family.sample((), jax.random.split(task_key)[0]))(keys)

    drawn = draw(np.arange(first, first + steps))
    return sum(float(np.asarray(leaf).sum()) for leaf in jax.tree.leaves(drawn))


def test_the_timed_sampling_adds_up_every_number_of_every_task_of_the_training_steps():
    import _bench_sampling_worker as worker

    family, key = sinusoid.build(sinusoid.Config(shots=2, queries=2)), jax.random.key(7)
    total = worker.make_sampling(make_loop(family), 3)((), key, 5, 4)
    np.testing.assert_allclose(float(total), sum_draws(family, key, 5, 4), rtol=1e-4)


def test_a_stage_with_copies_draws_the_tasks_of_every_member():
    import _bench_sampling_worker as worker

    family, keys = sinusoid.build(sinusoid.Config(shots=2, queries=2)), jax.random.split(jax.random.key(7))
    totals = worker.make_sampling(make_loop(family), 3, axes=1)((), keys, 5, 4)
    np.testing.assert_allclose(float(totals), sum(sum_draws(family, key, 5, 4) for key in keys), rtol=1e-4)


def test_neither_the_keys_nor_the_tables_of_the_data_are_constants_of_the_timed_program():
    import _bench_sampling_worker as worker

    def sample(data, key) -> base.Episode:
        rows = data[jax.random.randint(key, (2,), 0, data.shape[0])]
        return base.Episode(base.Examples(rows, rows), base.Examples(rows, rows))

    family = sinusoid.build(sinusoid.Config())._replace(sample=sample)
    program = worker.make_sampling(make_loop(family), 3)
    compiled = program.lower(jnp.arange(5000.0), jax.random.key(0), 0, 4).compile().as_text()
    loops = [line for line in compiled.splitlines() if " while(" in line]
    assert loops, "the steps are a loop"
    assert not any("constant({" in line and "5000" in line for line in compiled.splitlines())


def test_a_share_above_the_limit_is_marked():
    import _bench_sampling

    row = {"stage": "maml", "tasks": 25, "step": 0.010, "sampling": 0.0009}
    assert _bench_sampling.make_line(Path("sinusoid/maml.yaml"), row)[-2:] == ("9.0%", "yes")
    line = _bench_sampling.make_line(Path("sinusoid/maml.yaml"), row | {"sampling": 0.0011})
    assert line[-2:] == ("11.0%", "NO")


def test_the_first_config_with_data_is_measured_for_each_family_and_the_others_are_named(monkeypatch, capsys):
    import _bench_sampling

    folders = [[Path("a/one.yaml"), Path("a/two.yaml")], [Path("b/one.yaml")]]
    row = {"stage": "maml", "tasks": 1, "step": 1.0, "sampling": 0.01}
    answers = {"a/two.yaml": {"rows": [row]}, "b/one.yaml": {"left_out": "no such data"}}
    monkeypatch.setattr(_bench_sampling, "list_default_configs", lambda: folders)
    monkeypatch.setattr(
        _bench_sampling, "run_worker", lambda path, _: answers.get(str(path), {"left_out": "nothing here"})
    )
    assert [line[0] for line in _bench_sampling.measure_configs([], None)] == ["a/two"]
    said = capsys.readouterr().err
    assert "a/one.yaml is left out: nothing here" in said
    assert "b/one.yaml is left out: no such data" in said


def test_every_default_config_is_an_experiment():
    import _bench_sampling

    folders = _bench_sampling.list_default_configs()
    assert len(folders) > 3
    assert all(folder and config.load(folder[0]) for folder in folders)
