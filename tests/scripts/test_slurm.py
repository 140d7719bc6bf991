"""scripts/slurm.sh with a stand-in for srun, which starts the processes of the step on this machine."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import processes
from helpers.runs import SINGLE, read_json

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


def find_job() -> int:
    """A job whose port is free: SLURM jobs take the port that jax derives from their number."""
    for job in range(1000, 1100):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", job % 4096 + 61440))
            except OSError:
                continue
            return job
    raise AssertionError("no free port")


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


def test_the_step_starts_one_process_a_task_in_a_run_directory_of_the_job(tmp_path):
    cluster = Cluster(tmp_path, "#!/usr/bin/env bash\n")
    assert cluster.submit("small.yaml", "seed=3", SLURM_JOB_ID="77", SLURM_NTASKS="2").returncode == 0
    cluster.submit("small.yaml", "--run-dir", "mine", SLURM_JOB_ID="77", SLURM_NTASKS="2")
    train = f"--kill-on-bad-exit=1 {tmp_path}/scripts/train.sh small.yaml"
    assert cluster.calls() == [
        f"{train} seed=3 --run-dir runs/slurm-77 --resume",
        f"{train} --run-dir mine --resume",
    ]


@pytest.mark.parametrize(
    ("arguments", "variables", "word"),
    [
        (("small.yaml",), {}, "no SLURM job"),
        ((), {"SLURM_JOB_ID": "7"}, "no config"),
        (("small.yaml",), {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": "/"}, "METARUN_ROOT"),
    ],
)
def test_a_job_that_cannot_start_says_so_in_three_lines(tmp_path, arguments, variables, word):
    done = Cluster(tmp_path).submit(*arguments, **variables)
    assert done.returncode == 2
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "where", "to do"]
    assert word in done.stderr


@pytest.mark.fault
def test_the_tasks_of_a_job_train_one_run(tmp_path):
    cluster = Cluster(tmp_path)
    done = cluster.submit("small.yaml", SLURM_JOB_ID=str(job := find_job()), SLURM_NTASKS="2")
    assert done.returncode == 0, (
        done.stderr + (tmp_path / "err0").read_text() + (tmp_path / "err1").read_text()
    )
    run = tmp_path / f"runs/slurm-{job}"
    assert read_json(run / "status.json")["status"] == "done"
    assert len(read_json(run / "environment.json")["devices"]) == 2
    assert (tmp_path / "out0").read_text().splitlines()[-1] == f"runs/slurm-{job}"
    assert (tmp_path / "out1").read_text() == ""
