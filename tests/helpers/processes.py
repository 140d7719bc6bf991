"""Python in a process of its own, with the helpers on its path."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent


def environment(devices: int = 1, flags: str | None = None) -> dict[str, str]:
    """Return the environment of a process that has so many simulated devices and finds the helpers.

    Args:
      flags: of XLA; None means those of this process.
    """
    flags = os.environ.get("XLA_FLAGS", "") if flags is None else flags
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    return {
        **os.environ,
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}".strip(),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": path,
    }


def run_code(code: str, *arguments: object, devices: int = 1, flags: str | None = None) -> str:
    """Return what `code` prints in a fresh interpreter with that many simulated devices."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment(devices, flags),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
