"""The variables that jax reads when it starts on a GPU. Imports no part of metarun.

They must be set before jax's backend starts. What somebody has set already stays.
"""

from collections.abc import Mapping
from pathlib import Path

FLAGS = "XLA_FLAGS"
MEMORY = "XLA_CLIENT_MEM_FRACTION"
OLD_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # its name before; jax refuses both at once
# `deterministic_ops` leaves out whatever adds in no fixed order. Autotuning times several kernels and takes the
# fastest, so that the next process may take another one, which rounds otherwise: level 0 takes the first, untimed.
DETERMINISTIC = {"xla_gpu_deterministic_ops": "true", "xla_gpu_autotune_level": "0"}


def compose_variables(
    memory_fraction: float | None, deterministic: bool, environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables to set, beside those of the environment, for these two options of the config."""
    variables: dict[str, str] = {}
    if memory_fraction is not None and read_memory_fraction(environment) is None:
        variables[MEMORY] = str(memory_fraction)
    if deterministic:
        variables[FLAGS] = add_flags(DETERMINISTIC, environment.get(FLAGS, ""))
    return variables


def add_flags(flags: Mapping[str, str], text: str) -> str:
    """Return XLA_FLAGS with these flags before the others, without those that it has already."""
    present = read_flags(text)
    added = [f"--{name}={value}" for name, value in flags.items() if name not in present]
    return " ".join([*added, open_flags(text)]).strip()


def open_flags(text: str) -> str:
    """Return the flags of XLA_FLAGS, which may be the path of a file with them."""
    text = text.strip()
    return text if not text or text.startswith("-") else " ".join(Path(text).read_text("utf-8").split())


def read_flags(text: str) -> dict[str, str]:
    """Return {flag: value} of XLA_FLAGS. If a flag is there twice, the last one counts."""
    pairs = (flag.lstrip("-").partition("=") for flag in open_flags(text).split())
    return {name: value if equals else "true" for name, equals, value in pairs}


def read_memory_fraction(environment: Mapping[str, str]) -> float | None:
    """Return the share of the GPU's memory that jax takes at its start; None: its own, three quarters."""
    text = environment.get(MEMORY) or environment.get(OLD_MEMORY)
    return float(text) if text else None


def is_deterministic(environment: Mapping[str, str]) -> bool:
    """Return whether two processes with these variables compute the same bits on one kind of GPU."""
    flags = read_flags(environment.get(FLAGS, ""))
    values = {name: flags.get(name, "").lower() for name in DETERMINISTIC}
    return values["xla_gpu_deterministic_ops"] in ("true", "1") and values["xla_gpu_autotune_level"] == "0"
