"""scripts/slurm.sh with a stand-in for srun, which starts the processes of the step on this machine."""

import pytest

from helpers.cluster import Cluster


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
