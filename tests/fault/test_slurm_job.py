"""The tasks of a SLURM job train one run."""

import socket

import pytest

from helpers.cluster import Cluster
from helpers.runs import read_json


@pytest.fixture(autouse=True)
def one_try(attack) -> None:
    """Each test is one attack."""
    attack.tries += 1


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
