"""The `--sampling` part of scripts/bench.py: that it draws what training draws, and all of it."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarun import base, training
from metarun.config import Training
from metarun.tasks import sinusoid

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """scripts/ is no package."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])


def loop_of(family: base.TaskFamily) -> training.Loop:
    return training.Loop(None, family.sample, None, Training(steps=10, tasks_per_step=3), None)


def test_the_timed_sampling_adds_up_every_number_of_every_task_of_the_training_steps():
    import _bench_sampling_worker as worker

    family, key = sinusoid.build(sinusoid.Config(shots=2, queries=2)), jax.random.key(7)
    total = worker.sampling_program(loop_of(family), 3)((), key, 5, 4)

    def drawn(task_key):
        return jax.tree.leaves(family.sample((), jax.random.split(task_key)[0]))

    keys = jnp.concatenate([training.sampling_keys(key, step, jnp.arange(3)) for step in range(5, 9)])
    expected = sum(float(leaf.sum()) for leaf in jax.vmap(drawn)(keys))
    np.testing.assert_allclose(float(total), expected, rtol=1e-4)


def test_neither_the_keys_nor_the_tables_of_the_data_are_constants_of_the_timed_program():
    import _bench_sampling_worker as worker

    def sample(data, key) -> base.Episode:
        chosen = data[jax.random.randint(key, (2,), 0, data.shape[0])]
        return base.Episode(base.Examples(chosen, chosen), base.Examples(chosen, chosen))

    family = sinusoid.build(sinusoid.Config())._replace(sample=sample)
    program = worker.sampling_program(loop_of(family), 3)
    compiled = program.lower(jnp.arange(5000.0), jax.random.key(0), 0, 4).compile().as_text()
    loops = [line for line in compiled.splitlines() if " while(" in line]
    assert loops, "the steps are a loop"
    assert not any("constant({" in line and "5000" in line for line in compiled.splitlines())


def test_a_share_above_the_limit_is_marked():
    import _bench_sampling

    row = {"stage": "maml", "tasks": 25, "step": 0.010, "sampling": 0.0009}
    assert _bench_sampling.line(Path("sinusoid/maml.yaml"), row)[-2:] == ("9.0%", "yes")
    assert _bench_sampling.line(Path("sinusoid/maml.yaml"), row | {"sampling": 0.0011})[-2:] == (
        "11.0%",
        "NO",
    )


def test_of_every_family_the_first_config_with_data_is_measured_and_the_others_are_said(monkeypatch, capsys):
    import _bench_sampling

    folders = [[Path("a/one.yaml"), Path("a/two.yaml")], [Path("b/one.yaml")]]
    row = {"stage": "maml", "tasks": 1, "step": 1.0, "sampling": 0.01}
    answers = {"a/two.yaml": {"rows": [row]}, "b/one.yaml": {"left_out": "no such data"}}
    monkeypatch.setattr(_bench_sampling, "default_configs", lambda: folders)
    monkeypatch.setattr(
        _bench_sampling, "ask", lambda path, _: answers.get(str(path), {"left_out": "nothing here"})
    )
    assert [line[0] for line in _bench_sampling.report([], None)] == ["a/two"]
    said = capsys.readouterr().err
    assert "a/one.yaml is left out: nothing here" in said
    assert "b/one.yaml is left out: no such data" in said
