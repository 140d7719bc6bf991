"""scripts/slurm.sh with a stand-in for srun, which starts the processes of the step on this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import processes
from helpers.runs import SINGLE

ROOT = Path(__file__).parents[2]
# Like srun: its own options come first; every task gets its place; the worst exit code is that of the step.
SRUN = """#!/usr/bin/env bash
echo "$@" >>"$SRUN_CALLS"
while [[ $1 == --* ]]; do shift; done
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_STEP_NODELIST=localhost SLURM_PROCID=$task SLURM_LOCALID=$task "$@" >"out$task" 2>"err$task" &
    tasks[task]=$!
done
worst=0
for task in "${tasks[@]}"; do
    wait "$task" || worst=$?
done
exit "$worst"
"""
# In place of scripts/train.sh, which would install an environment.
TRAIN = """#!/usr/bin/env bash
[[ $1 != --help ]] || exec echo help
exec "$PYTHON" -c "from metarun import cli; cli.main()" train "$@"
"""


class Cluster:
    """A folder as the repository that all nodes share, and a PATH with a stand-in for srun."""

    def __init__(self, folder: Path, train: str = TRAIN) -> None:
        self.folder = folder
        for name, script in (("scripts/train.sh", train), ("tools/srun", SRUN)):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(script)
            path.chmod(0o755)
        self.spooled = shutil.copy(ROOT / "scripts/slurm.sh", folder / "slurm_script")  # SLURM runs a copy
        (folder / "small.yaml").write_text(SINGLE)

    def submit(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = processes.environment(1) | {
            "PATH": f"{self.folder / 'tools'}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SRUN_CALLS": str(self.folder / "calls"),
        }
        return subprocess.run(
            [self.spooled, *arguments],
            cwd=self.folder,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=200,
        )

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()
