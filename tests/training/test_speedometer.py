"""The lines about speed: what they say, how many there are, and that their learning rate is the one that is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import runs
from metarun import assembly, config
from metarun.runs import metrics
from metarun.training import optimizer, speedometer

SCHEDULES = (
    "{name: constant}",
    "{name: cosine, final: 0.1, warmup_steps: 5}",
    "{name: cosine}",
    "{name: linear, final: 0.25}",
    "{name: exponential, decay: 0.5, every: 7}",
    "{name: step, factor: 0.5, every: 7}",
)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_is_that_of_the_compiled_schedule(tmp_path, schedule):
    override = f"training.optimizer={{name: adam, learning_rate: 0.01, schedule: {schedule}}}"
    training = runs.load(tmp_path, runs.SINGLE, override).stages[0].training
    settings = training.optimizer.config
    compiled = optimizer.make_schedule(settings.schedule, settings.learning_rate, training.steps)
    steps = jnp.arange(30)
    expected = jax.jit(jax.vmap(compiled))(steps) if callable(compiled) else np.full(30, compiled)
    rates = [speedometer.calculate_rate(training, int(step)) for step in steps]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-9)


TRIALS = "{seeds: [0, 1], numbers: [{path: training.optimizer.learning_rate, values: [0.1, 0.2]}]}"


def make_meter(tmp_path, *overrides: str) -> speedometer.Speedometer:
    """Return a speedometer of a stage of two replicas, 24 steps and 4 tasks a step."""
    run_config = config.settle_trials(runs.load(tmp_path, runs.SINGLE, "replicas=2", *overrides))
    problem = assembly.build_family(run_config.task).problem
    (stage,) = assembly.build_stages(run_config, problem)
    return speedometer.Speedometer(stage, jax.devices("cpu")[:1])


def test_short_chunks_share_a_line_and_the_last_step_has_one(tmp_path):
    meter = make_meter(tmp_path)
    assert meter.make_rows(4, 4, 0.5, 10.0) == []
    (row,) = meter.make_rows(8, 4, 1.5, 10.5)
    assert row.pop("memory_peak_bytes") > 10**7  # of the process: a CPU does not count
    assert row == {
        "stage": "maml",
        "replica": 0,
        "split": metrics.SPEED,
        "step": 8,
        "learning_rate": 0.001,
        "seconds": 12.0,
        "tasks_per_second": 8 * 4 * 2 / 2.0,
    }
    assert meter.make_rows(12, 4, 0.5, 12.0) == []
    assert meter.make_rows(24, 12, 0.1, 12.5)[0]["tasks_per_second"] == pytest.approx(
        16 * 4 * 2 / 0.6, rel=1e-3
    )


def test_trials_with_rates_of_their_own_have_a_line_each(tmp_path):
    meter = make_meter(tmp_path, f"trials={TRIALS}")
    first, second = meter.make_rows(24, 24, 1.0, 0.0)
    assert (first["learning_rate"], second["learning_rate"]) == (0.1, 0.2)
    assert set(second) == {"stage", "replica", "split", "step", "learning_rate"}


def test_a_run_has_the_lines(single):
    rows = [row for row in metrics.read(single / "metrics.jsonl") if row["split"] == metrics.SPEED]
    assert rows[-1]["step"] == 24
    assert all(row["tasks_per_second"] > 0 and row["learning_rate"] == 0.001 for row in rows)
