"""The variables for jax on a GPU: what a user has set stays, and what is in effect is told."""

import pytest

from metarun import gpu_settings
from metarun.gpu_settings import FLAGS, MEMORY, OLD_MEMORY

PINNED = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"


def test_by_default_nothing_is_set():
    assert gpu_settings.compose_variables(None, False, {FLAGS: "--xla_dump_to=here"}) == {}


def test_determinism_and_memory_become_variables():
    assert gpu_settings.compose_variables(0.5, True, {}) == {MEMORY: "0.5", FLAGS: PINNED}


def test_flags_of_the_user_stay_and_none_is_given_twice():
    flags = "--xla_gpu_autotune_level=2   --xla_gpu_enable_command_buffer= --xla_cpu_enable_fast_math"
    composed = gpu_settings.compose_variables(None, True, {FLAGS: flags})[FLAGS]
    assert gpu_settings.read_flags(composed) == {
        "xla_gpu_deterministic_ops": "true",
        "xla_gpu_autotune_level": "2",
        "xla_gpu_enable_command_buffer": "",
        "xla_cpu_enable_fast_math": "true",
    }
    assert composed.count("autotune_level") == 1


def test_flags_in_a_file_stay(tmp_path):
    """jax reads a file if XLA_FLAGS holds no flags, and knows no mixture of both."""
    (tmp_path / "flags").write_text("--xla_dump_to=here\n--xla_gpu_autotune_level=0\n")
    composed = gpu_settings.compose_variables(None, True, {FLAGS: str(tmp_path / "flags")})
    kept = "--xla_dump_to=here --xla_gpu_autotune_level=0"
    assert composed == {FLAGS: f"--xla_gpu_deterministic_ops=true {kept}"}


@pytest.mark.parametrize("name", [MEMORY, OLD_MEMORY])
def test_a_share_of_memory_in_the_environment_stays_under_either_name(name):
    """jax refuses to start with both."""
    assert gpu_settings.compose_variables(0.5, False, {name: "0.9"}) == {}
    assert gpu_settings.read_memory_fraction({name: "0.9"}) == 0.9


@pytest.mark.parametrize(
    ("flags", "deterministic"),
    [
        ("", False),
        (PINNED, True),
        ("--xla_gpu_deterministic_ops --xla_gpu_autotune_level=0", True),
        ("--xla_gpu_deterministic_ops=true", False),
        (f"{PINNED} --xla_gpu_autotune_level=4", False),
        (f"{PINNED} --xla_gpu_deterministic_ops=false", False),
    ],
)
def test_a_process_is_deterministic_if_both_flags_are_in_effect(flags, deterministic):
    assert gpu_settings.is_deterministic({FLAGS: flags}) == deterministic
