"""`metarun train` as a command of its own, timed from its start to its result."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "import sys; from metarun import cli; sys.argv[0] = 'metarun'; cli.main()"


def train(config: str, overrides: list[str], folder: Path, cache: Path) -> dict[str, float]:
    """Run `metarun train` in the repository's root, and return its seconds by the clock and on all cores.

    Args:
      config: a path from the repository's root, or an absolute one.
    """
    command = [
        sys.executable,
        "-c",
        SOURCE,
        "train",
        str(ROOT / config),
        *overrides,
        "--run-dir",
        str(folder),
    ]
    environment = {**os.environ, "METARUN_CACHE": str(cache)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 1), "core_seconds": round(used, 1)}
