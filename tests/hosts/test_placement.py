"""Which process this is: from the config, from the variables, from the cluster; and what is refused."""

import pytest

from metarun import errors
from metarun.config import Hosts
from metarun.hosts import guardian, placement
from metarun.hosts.placement import Placement, find_placement

ALONE: dict[str, str] = {}
GIVEN = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:4321", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-3]",
    "SLURM_NTASKS": "3",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:99",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "0",
}


@pytest.fixture(autouse=True)
def no_tpu(monkeypatch):
    monkeypatch.setattr(placement, "is_tpu_host", lambda: False)


@pytest.mark.parametrize(
    ("settings", "variables", "place"),
    [
        (Hosts(), ALONE, None),
        (Hosts(), GIVEN, ("10.0.0.1:4321", 4, 2, None)),
        (Hosts("here:1", 8, 7), GIVEN, ("here:1", 8, 7, None)),
        (
            Hosts(),
            {**GIVEN, "JAX_NUM_PROCESSES": "", "JAX_PROCESS_COUNT": "5"},
            ("10.0.0.1:4321", 5, 2, None),
        ),
        (Hosts(), SLURM, (None, 3, 1, "SLURM")),
        (Hosts("here:1"), SLURM, ("here:1", 3, 1, "SLURM")),
        (Hosts(), OPEN_MPI, (None, 2, 0, "Open MPI")),
        (Hosts(), {"TPU_WORKER_HOSTNAMES": "one,two"}, (None, None, None, "a TPU pod")),
        (Hosts(count=1), SLURM | GIVEN, None),
        (Hosts(), {**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        (Hosts(), {name: SLURM[name] for name in SLURM if name != "SLURM_STEP_NODELIST"}, None),
    ],
)
def test_the_config_comes_before_the_variables_and_those_before_the_cluster(settings, variables, place):
    assert find_placement(settings, variables) == (place and Placement(*place))


@pytest.mark.parametrize(
    ("settings", "variables", "word"),
    [
        (Hosts("here:1", 2), ALONE, "index"),
        (Hosts(count=2, index=0), ALONE, "coordinator"),
        (Hosts("here:1", index=0), ALONE, "count"),
        (Hosts(), {**GIVEN, "JAX_PROCESS_ID": "4"}, "process 4 of 4"),
        (Hosts(), {**GIVEN, "JAX_PROCESS_ID": "first"}, "JAX_PROCESS_ID"),
    ],
)
def test_a_place_that_is_not_known_or_not_there_is_refused(settings, variables, word):
    with pytest.raises(errors.ConfigError, match=word):
        find_placement(settings, variables)


@pytest.mark.parametrize("address", ["here", "here:", "here:port", ":1", "a b:1"])
def test_a_coordinator_is_a_host_and_a_port(address):
    with pytest.raises(ValueError, match="no address"):
        Hosts(address)


def test_an_index_lies_below_the_count():
    with pytest.raises(ValueError, match="process 2 of 2"):
        Hosts("here:1", 2, 2)


@pytest.mark.parametrize(
    ("code", "facts", "word"),
    [
        (-6, {"joined": True}, "another process"),
        (1, {"joined": True}, "another process"),
        (-6, {}, "did not find each other: DEADLINE_EXCEEDED"),
        (-9, {"joined": True}, "SIGKILL"),
    ],
)
def test_the_guardian_says_what_a_sudden_end_means(code, facts, word):
    said = "F1121 1 client.h:80] Terminating. absl::Status: DEADLINE_EXCEEDED: Deadline Exceeded\n"
    error = guardian.explain(code, "process 0 of 2", facts, said)
    assert word in error.what
    assert error.exit_code == 9
