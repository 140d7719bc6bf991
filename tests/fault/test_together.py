"""Several processes train one run: the run of one process with as many devices, bit for bit, whatever befalls them."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import processes
from helpers.runs import BOTH, SINGLE, final_states, lines, read_json, results

# In the child, which has not imported jax yet: how long it waits for the others.
COMMAND = "from metarun.hosts import meeting; meeting.JOIN_SECONDS = {}; from metarun import cli; cli.main()"
# Seconds that processes wait for each other which all come; on a busy machine a start takes a minute.
PATIENCE = 240
# A step takes some milliseconds, so that a signal at the first line comes before the last step.
LONG = (
    SINGLE.replace("steps: 24", "steps: 400")
    .replace("chunk: 4", "chunk: 1")
    .replace("every: 10", "every: 150")
)
LONG = LONG.replace("checkpoint: {every: 8", "checkpoint: {every: 120")
PAIR = {"JAX_NUM_PROCESSES": "2"}  # for a process that is started alone


@pytest.fixture(autouse=True)
def one_try(attack) -> None:
    """Each test is one attack."""
    attack.tries += 1


def find_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Group:
    """Some processes of `metarun train` with the same command line."""

    def __init__(
        self,
        folder: Path,
        text: str,
        *arguments: str,
        count: int = 2,
        port: int = 0,
        patience: int = PATIENCE,
        **places: dict,
    ):
        self.command = COMMAND.format(patience)
        folder.mkdir(exist_ok=True)
        (folder / "small.yaml").write_text(text)
        self.folder, self.run = folder, folder / "run"
        address = f"127.0.0.1:{port or find_port()}"
        self.members = []
        for index in range(count):
            variables = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
            variables |= {"JAX_PROCESS_ID": str(index)} | places.get(f"process_{index}", {})
            self.members.append(self.start(arguments, {k: v for k, v in variables.items() if v}, index))

    def start(self, arguments: tuple[str, ...], variables: dict[str, str], index: int) -> subprocess.Popen:
        with (self.folder / f"out{index}").open("w") as out, (self.folder / f"err{index}").open("w") as err:
            return subprocess.Popen(
                [sys.executable, "-c", self.command, "train", "small.yaml", "--run-dir", "run", *arguments],
                cwd=self.folder,
                env=processes.environment(1) | variables,
                stdout=out,
                stderr=err,
            )

    def wait_for_a_step(self) -> None:
        deadline = time.monotonic() + 600
        metrics = self.run / "metrics.jsonl"
        while not (metrics.is_file() and metrics.stat().st_size):
            assert time.monotonic() < deadline and self.members[0].poll() is None, self.read("err0")
            time.sleep(0.01)

    def finish(self, seconds: float = 600) -> list[int]:
        """The exit codes of all, which end within some seconds."""
        deadline = time.monotonic() + seconds
        try:
            return [member.wait(max(0.1, deadline - time.monotonic())) for member in self.members]
        finally:
            for member in self.members:
                member.kill()

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def assert_three_lines(self, index: int, *words: str) -> None:
        """What the process says ends with the three lines of an error, and no trace of C++ or of Python before."""
        text = self.read(f"err{index}")
        error = text.splitlines()[-3:]
        assert [line.partition(": ")[0] for line in error] == ["error", "where", "to do"], text
        assert "Traceback" not in text and "Check failure" not in text, text
        assert all(word in text for word in words), text


def train_alone(folder: Path, text: str, devices: int, *arguments: str) -> Path:
    """Train in one process with simulated devices, and return the run."""
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(text)
    command = f"import os; os.chdir({str(folder)!r}); from metarun import cli; cli.main()"
    overrides = (f"accelerator.devices={devices}", *arguments)
    processes.run_code(command, "train", "small.yaml", "--run-dir", "run", *overrides, devices=devices)
    return folder / "run"


def assert_same_numbers(path: Path, reference: Path) -> None:
    """Weights, memory of the optimizer, metrics and results are the same bytes; the devices have other names."""
    assert lines(path) == lines(reference)
    assert final_states(path) == final_states(reference)
    ours, theirs = ({**results(run), "accelerator": None} for run in (path, reference))
    assert ours == theirs


@pytest.mark.parametrize(
    ("text", "count", "overrides"),
    [
        (SINGLE, 4, ()),
        (BOTH, 2, ("evaluation.checkpoint=best",)),
    ],
    ids=["tasks over four processes", "replicas over two"],
)
def test_several_processes_give_the_bits_of_one_with_as_many_devices(tmp_path, text, count, overrides):
    group = Group(tmp_path / "together", text, *overrides, count=count)
    reference = train_alone(tmp_path / "alone", text, count, *overrides)
    assert group.finish() == [0] * count, group.read("err0") + group.read("err1")
    assert_same_numbers(group.run, reference)
    assert group.read("out0").splitlines()[-1] == "run"
    assert [group.read(f"out{index}") for index in range(1, count)] == [""] * (count - 1)
    assert len(read_json(group.run / "environment.json")["devices"]) == count


@pytest.fixture(scope="module")
def long_run(tmp_path_factory) -> Path:
    return train_alone(tmp_path_factory.mktemp("long"), LONG, 2)


def test_a_signal_to_one_stops_all_at_one_step_and_another_number_of_processes_goes_on(long_run, tmp_path):
    group = Group(tmp_path / "run", LONG)
    group.wait_for_a_step()
    group.members[1].send_signal(signal.SIGTERM)
    assert group.finish() == [143, 143], group.read("err0") + group.read("err1")
    status = read_json(group.run / "status.json")
    assert status["status"] == "preempted"
    assert 0 < status["step"] < 400
    assert (group.run / f"checkpoints/maml/{status['step']}/manifest.json").is_file()
    resumed = train_alone(group.folder, LONG, 2, "--resume")
    assert_same_numbers(resumed, long_run)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_both_together_go_on(long_run, tmp_path, victim):
    group = Group(tmp_path / "run", LONG)
    group.wait_for_a_step()
    group.members[victim].kill()
    codes = group.finish()
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 9
    group.assert_three_lines(1 - victim, "another process of the run has ended", "--resume")
    again = Group(group.folder, LONG, "--resume")
    assert again.finish() == [0, 0], again.read("err0") + again.read("err1")
    assert_same_numbers(again.run, long_run)


def test_the_child_ends_with_its_guardian(tmp_path):
    """A cluster kills the process that it has started, and knows of no child."""
    group = Group(tmp_path / "run", LONG, count=2)
    group.wait_for_a_step()
    children = [
        int(child)
        for member in group.members
        for child in Path(f"/proc/{member.pid}/task/{member.pid}/children").read_text().split()
    ]
    assert len(children) == 2
    for member in group.members:
        member.kill()
    deadline = time.monotonic() + 120
    while any(is_running(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_an_error_of_the_first_process_is_that_of_all(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").touch()
    group = Group(tmp_path, SINGLE)
    assert group.finish() == [6, 6]
    group.assert_three_lines(0, "no run")
    group.assert_three_lines(1, "process 0 of the run failed", "no run")


def test_processes_with_different_configs_are_refused(tmp_path):
    port, second = find_port(), {**PAIR, "JAX_PROCESS_ID": "1"}
    group = Group(tmp_path, SINGLE, count=1, port=port, process_0=PAIR)
    other = Group(tmp_path / "other", SINGLE, "seed=3", count=1, port=port, process_0=second)
    assert group.finish() == [3]
    assert other.finish() == [3]
    group.assert_three_lines(0, "process 1 of the run failed", "seed")
    other.assert_three_lines(0, "seed: 3", "same command line")


def test_who_does_not_find_the_others_says_so(tmp_path):
    """Alone as process 0, alone as process 1, at a busy port, beyond the count: at once or after the patience."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        busy = Group(tmp_path / "busy", SINGLE, count=1, port=port, process_0=PAIR)
        assert busy.finish() == [9]
    busy.assert_three_lines(0, "cannot be joined", "free port")
    nobody = Group(
        tmp_path / "nobody", SINGLE, count=1, patience=5, process_0={**PAIR, "JAX_PROCESS_ID": "1"}
    )
    beyond = {"JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}
    mismatch = Group(tmp_path / "mismatch", SINGLE, patience=5, process_1=beyond)
    assert nobody.finish() == [9]
    assert mismatch.finish() == [9, 9]
    nobody.assert_three_lines(0, "did not find each other", "coordinator")
    for index in (0, 1):
        mismatch.assert_three_lines(index, "did not find each other", "same coordinator")


def test_a_process_without_an_index_is_a_fault_of_the_config(tmp_path):
    group = Group(tmp_path, SINGLE, count=1, process_0={**PAIR, "JAX_PROCESS_ID": ""})
    assert group.finish() == [3]
    group.assert_three_lines(0, "index")
    assert not group.run.exists()
