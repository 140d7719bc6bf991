"""Weights that no memory holds are refused from their shapes alone."""

import jax
import jax.numpy as jnp
import pytest

from metarun import base
from metarun.errors import ConfigError
from metarun.training import room, trial_memory


def refuse(memory: float | None, learners: int = 1, side: int = 10**5) -> None:
    """Check a stage whose trained weights are float32 [learner, side, side]."""
    shape = jax.ShapeDtypeStruct((learners, side, side), jnp.float32)
    weights = base.Weights(trained={"kernel": shape}, frozen={"table": jax.ShapeDtypeStruct((5,), jnp.int8)})
    room.refuse_too_large({"large": weights}, jax.devices()[0], memory)


def test_weights_and_their_gradient_must_fit():
    refuse(2 * 4 * 10**10 + 5)
    with pytest.raises(ConfigError, match=r"80\.0 GB.*\n.*stage large"):
        refuse(2 * 4 * 10**10 + 4)


def test_all_learners_count():
    refuse(2 * 4 * 7 * 10**4 + 5, learners=7, side=100)
    with pytest.raises(ConfigError):
        refuse(2 * 4 * 6 * 10**4 + 5, learners=7, side=100)


def test_processes_that_train_a_run_together_share_out_its_replicas(monkeypatch):
    monkeypatch.setattr(trial_memory, "find_memory", lambda device, sharing: 2 * 4 * 10**4)
    with pytest.raises(ConfigError):
        refuse(None, learners=2, side=100)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    refuse(None, learners=2, side=100)


def test_the_memory_of_this_machine_holds_no_petabyte():
    with pytest.raises(ConfigError, match="GB are free"):
        refuse(None, side=2**25)
