"""The run directory: whole files or none, one writer at a time, nobody's folder polluted."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metarun import errors, outside
from metarun.runs import directory, environment, files, metrics
from metarun.runs.directory import RunDirectory


def in_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def start_run(path: Path) -> None:
    with RunDirectory.open(path, resume=False) as run:
        run.write_config("seed: 0\n")


def refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_importing_the_run_directory_imports_no_jax():
    code = """
import sys, metarun.runs.directory, metarun.runs.manifest
sys.exit(bool({"jax", "orbax"} & set(sys.modules)))"""
    assert in_python(code).returncode == 0


# --- files ---


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_write_that_the_disk_refuses_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "status.json"
    files.write_text(path, "old")
    monkeypatch.setattr(os, failing, refuse)
    with pytest.raises(errors.StorageError) as caught:
        files.write_text(path, "new")
    monkeypatch.undo()
    assert caught.value.exit_code == 8
    assert "disk is full" in caught.value.what
    assert str(tmp_path) in caught.value.where
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("status.json", "old")]


def test_a_reader_never_sees_half_of_a_file(tmp_path, monkeypatch):
    path, seen = tmp_path / "result.json", []
    files.write_bytes(path, b"a" * 100)
    write = os.write

    def one_byte(descriptor, content):
        seen.append(path.read_bytes())
        return write(descriptor, content[:1])

    monkeypatch.setattr(os, "write", one_byte)
    files.write_bytes(path, b"b" * 50)
    assert seen == [b"a" * 100] * 50
    assert path.read_bytes() == b"b" * 50


def test_an_error_that_is_no_storage_error_passes_unchanged(tmp_path):
    with pytest.raises(BlockingIOError), files.storage_errors(tmp_path):
        raise BlockingIOError(11, "try again")


@pytest.mark.parametrize("name", ["..", "a/b", "", "/etc", ".hidden", "-rf", "a\n"])
def test_a_name_from_outside_cannot_leave_its_folder(tmp_path, name):
    with pytest.raises(errors.ConfigError):
        files.child(tmp_path, name)


def test_json_files_hold_no_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"loss": np.float32("nan"), "values": np.array([1.0, -np.inf])})
    content = (tmp_path / "a.json").read_text()
    assert json.loads(content, parse_constant=pytest.fail) == {"loss": "nan", "values": [1.0, "-inf"]}


# --- directory ---


def test_the_newest_run_goes_by_the_time_in_its_name_and_skips_what_is_no_run(tmp_path):
    for name in ["20250102-000000-aaaa", "20250101-000000-ffff", "notes"]:
        start_run(tmp_path / "maml" / name)
    (tmp_path / "maml" / "20250103-000000-0000").mkdir()  # killed before it had a config
    assert directory.find_newest("maml", tmp_path) == tmp_path / "maml" / "20250102-000000-aaaa"
    assert directory.find_newest("other", tmp_path) is None


def test_within_one_second_the_newest_run_is_the_one_begun_last(tmp_path):
    for name, time in [("20250101-000000-ffff", 1), ("20250101-000000-aaaa", 2)]:
        start_run(tmp_path / "maml" / name)
        os.utime(tmp_path / "maml" / name / "config.yaml", (time, time))
    assert directory.find_newest("maml", tmp_path).name == "20250101-000000-aaaa"


def test_an_existing_run_is_refused_unless_it_is_resumed(tmp_path):
    start_run(tmp_path / "run")
    with pytest.raises(errors.RunDirectoryError, match="--resume") as caught:
        RunDirectory.open(tmp_path / "run", resume=False)
    assert caught.value.exit_code == 6
    with RunDirectory.open(tmp_path / "run", resume=True) as run:
        assert run.resumed
        assert run.read_config() == "seed: 0\n"


def test_resuming_where_nothing_is_starts_afresh(tmp_path):
    with RunDirectory.open(tmp_path / "a" / "b", resume=True) as run:
        assert not run.resumed


def test_what_a_run_killed_before_its_config_left_behind_is_no_run(tmp_path):
    (tmp_path / "lock").write_text("123\n")
    (tmp_path / ".temporary-config.yaml-00").write_text("see")
    with RunDirectory.open(tmp_path, resume=False) as run:
        assert not run.resumed
        assert not list(tmp_path.glob(".temporary*"))


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "names", [["thesis.tex"], ["config.yaml"], ["config.yaml", "train.py"], ["lock", "a"]]
)
def test_a_folder_that_is_no_run_is_left_as_it_was(tmp_path, names, resume):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(errors.RunDirectoryError, match="no run"):
        RunDirectory.open(tmp_path, resume)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "mine")


@pytest.mark.parametrize("kind", [*directory.REFUSALS, errors.StorageError, KeyboardInterrupt])
@pytest.mark.parametrize("trained", [False, True])
def test_a_refused_run_leaves_no_directory_unless_something_is_trained(tmp_path, kind, trained):
    path = tmp_path / "run"
    error = kind("what", "where", "remedy")
    with pytest.raises(kind), directory.RunDirectory.open(path, resume=False) as run:
        run.write_config("task: {}")
        run.write_status("running")
        (path / "checkpoints/first/0").mkdir(parents=True)  # from another run
        if trained:
            run.metrics.append([{"step": 1}])
        raise error
    assert path.exists() == (trained or kind not in directory.REFUSALS)


def test_a_refused_run_behind_a_link_leaves_the_folder_empty_for_the_next(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "run"
    link.symlink_to("disk")
    with pytest.raises(errors.ConfigError), directory.RunDirectory.open(link, resume=False) as run:
        run.write_config("task: {}")
        (link / "checkpoints/first/0").mkdir(parents=True)
        raise errors.ConfigError("what", "where", "remedy")
    assert link.is_symlink() and not list((tmp_path / "disk").iterdir())


@pytest.mark.parametrize("kind", [TypeError, KeyboardInterrupt, OSError])
def test_a_plugin_from_elsewhere_that_fails_leaves_no_directory(tmp_path, monkeypatch, kind):
    """A bug of ours does, with the traceback in its log; so does a signal."""
    path = tmp_path / "run"
    monkeypatch.setattr(outside, "LOADED", {__file__})
    with pytest.raises(kind), directory.RunDirectory.open(path, resume=False):
        raise kind("broken")
    assert path.exists() == (kind is not TypeError)
    monkeypatch.setattr(outside, "LOADED", set())
    with pytest.raises(kind), directory.RunDirectory.open(tmp_path / "other", resume=False):
        raise kind("broken")
    assert (tmp_path / "other").exists()


def test_a_file_in_the_place_of_a_run_directory_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    for path in [tmp_path / "run", tmp_path / "run" / "below"]:
        with pytest.raises(errors.RunDirectoryError):
            RunDirectory.open(path, resume=False)


@pytest.mark.parametrize("name", [os.fsdecode(b"l\xffuft"), os.fsdecode(b"above\xe9") + "/run"])
def test_a_folder_whose_name_is_no_utf_8_is_refused_before_it_is_made(tmp_path, name):
    with pytest.raises(errors.StorageError, match="not UTF-8") as caught:
        RunDirectory.open(tmp_path / name, resume=False)
    assert "PYTHONUTF8=1" in caught.value.remedy and not list(tmp_path.iterdir())


def test_a_folder_that_the_locale_spells_in_other_bytes_than_utf_8_is_refused(tmp_path, monkeypatch):
    RunDirectory.open(tmp_path / "größe", resume=False).close()
    monkeypatch.setattr(os, "fsencode", lambda name: str(name).encode("latin-1"))
    with pytest.raises(errors.StorageError, match="not UTF-8"):
        RunDirectory.open(tmp_path / "läuft", resume=False)
    assert not (tmp_path / "läuft").exists()


HOLD = """
import sys, time, pathlib
from metarun.runs.directory import RunDirectory
run = RunDirectory.open(pathlib.Path(sys.argv[1]), resume=True)
run.write_config("seed: 0")
print("locked", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_told_who_writes_and_kill_9_frees_the_lock(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"locked\n"
            for resume in (False, True):
                with pytest.raises(errors.RunDirectoryError, match=f"process {holder.pid} ") as caught:
                    RunDirectory.open(tmp_path, resume)
                assert caught.value.exit_code == 6
        finally:
            holder.send_signal(signal.SIGKILL)
    with RunDirectory.open(tmp_path, resume=True) as run:
        assert run.resumed
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_run_that_is_refused_or_closed_holds_no_lock(tmp_path):
    start_run(tmp_path)
    for _ in range(2):
        with pytest.raises(errors.RunDirectoryError, match="already"):
            RunDirectory.open(tmp_path, resume=False)


def test_a_folder_without_permission_is_a_storage_error(tmp_path, monkeypatch):
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "run"))

    monkeypatch.setattr(os, "mkdir", deny)  # root, who runs many a test, may write everywhere
    with pytest.raises(errors.StorageError, match="permission"):
        RunDirectory.open(tmp_path / "run", resume=False)


def test_the_config_of_a_missing_run_is_a_checkpoint_error(tmp_path):
    with pytest.raises(errors.CheckpointError, match="no run"):
        directory.read_config(tmp_path / "nowhere")


def test_a_config_that_is_no_text_is_said_with_its_place(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(directory.UnreadableConfigError, match="cannot be read: it is not UTF-8") as caught:
        directory.read_config(tmp_path)
    assert caught.value.where == str(tmp_path / "config.yaml")


def test_status_says_where_the_run_is(tmp_path):
    with RunDirectory.open(tmp_path, resume=False) as run:
        run.write_status("running", "maml", 10)
        running = json.loads((tmp_path / "status.json").read_text())
        run.write_status("diverged", "maml", 11, "the loss is nan")
        diverged = json.loads((tmp_path / "status.json").read_text())
    own = {"status", "stage", "step", "updated", "pid", "host", "process_started"}
    assert running.keys() == {*own, "sha256"}
    assert (running["status"], running["stage"], running["step"]) == ("running", "maml", 10)
    assert running["pid"] == os.getpid()
    assert diverged["message"] == "the loss is nan"


def test_a_running_status_is_renewed_at_a_modest_pace(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with RunDirectory.open(tmp_path, resume=False) as run:
        run.write_status("running", "maml", 0)
        steps = []
        for step in range(1, 31):
            clock[0] += 1.0
            run.renew_status("maml", step)
            steps.append(json.loads((tmp_path / "status.json").read_text())["step"])
    assert sorted(set(steps)) == [0, 11, 22]


def test_a_resumed_run_remembers_the_command_that_began_it(tmp_path):
    contents = []
    for command in ("a.yaml", "--resume", "again"):
        with RunDirectory.open(tmp_path, resume=True) as run:
            run.write_config("seed: 0\n")
            run.write_environment(["metarun", command], [])
            run.write_status("failed")
        contents.append(json.loads((tmp_path / "environment.json").read_text()))
    assert "begun" not in contents[0]
    assert [content["begun"]["argv"][1] for content in contents[1:]] == ["a.yaml", "a.yaml"]
    assert contents[2]["argv"] == ["metarun", "again"]


def test_episodes_have_the_same_bytes_for_the_same_values_and_need_no_pickle(tmp_path, monkeypatch):
    values = {"loss": np.arange(3.0), "accuracy": np.ones(3, np.float32)}
    with RunDirectory.open(tmp_path, resume=False) as run:
        run.write_episodes("maml", "test", values)
        first = (tmp_path / "episodes" / "maml-test.npz").read_bytes()
        monkeypatch.setattr("time.time", lambda: 2e9)
        run.write_episodes("maml", "test", dict(reversed(values.items())))
        with pytest.raises(TypeError, match="pickle"):
            run.write_episodes("maml", "test", {"names": np.array([None])})
    path = tmp_path / "episodes" / "maml-test.npz"
    assert path.read_bytes() == first
    with np.load(path, allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["loss"], [0, 1, 2])


# --- metrics ---


@pytest.fixture
def lines(tmp_path):
    file = metrics.MetricsFile(tmp_path / "metrics.jsonl")
    yield file
    file.close()


def test_metrics_come_back_as_they_were_appended(lines):
    rows = [{"stage": "maml", "step": step, "loss": 0.1 * step} for step in range(3)]
    lines.append(rows[:1])
    lines.append(rows[1:])
    assert lines.read() == rows
    assert lines.size() == lines.path.stat().st_size


def test_numbers_that_are_not_finite_are_strings_that_float_reads(lines):
    lines.append([{"loss": float("nan"), "norm": np.float32("inf"), "replica": [1.0, -np.inf]}])
    line = json.loads(lines.path.read_text(), parse_constant=pytest.fail)
    assert line == {"loss": "nan", "norm": "inf", "replica": [1.0, "-inf"]}
    assert np.isnan(float(line["loss"]))


def test_numpy_scalars_are_written_exactly(lines):
    lines.append([{"a": np.float32(0.1), "b": np.int64(3), "c": np.bool_(True), "d": np.float64(0.1)}])
    assert lines.read() == [{"a": float(np.float32(0.1)), "b": 3, "c": True, "d": 0.1}]


def test_a_batch_is_one_write(lines, monkeypatch):
    calls = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda *arguments: calls.append(1) or write(*arguments))
    lines.append([{"step": step} for step in range(100)])
    assert len(calls) == 1


def test_truncating_forgets_later_lines_and_a_half_written_one(lines):
    lines.append([{"step": 1}])
    size = lines.size()
    lines.append([{"step": 2}])
    with lines.path.open("ab") as file:
        file.write(b'{"step": 3, "lo')
    assert lines.read() == [{"step": 1}, {"step": 2}]
    lines.truncate(size)
    lines.append([{"step": 20}])
    assert lines.read() == [{"step": 1}, {"step": 20}]


def test_a_file_shorter_than_the_checkpoint_says_is_refused_not_padded(lines):
    lines.append([{"step": 1}])
    with pytest.raises(errors.CheckpointError):
        lines.truncate(lines.size() + 1)
    assert lines.read() == [{"step": 1}]


def test_a_complete_line_that_is_no_json_is_refused_with_its_number(lines):
    lines.append([{"step": 1}])
    for line in (b"{half\n", b"[1]\n", b"[" * 100_000 + b"\n"):
        lines.path.write_bytes(b'{"step": 1}\n' + line)
        with pytest.raises(errors.DataError, match=r"metrics\.jsonl:2"):
            lines.read()


def test_a_full_disk_leaves_whole_lines_only(lines):
    lines.append([{"step": 1}])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (lines.size() + 5, hard))  # room for half a line
    try:
        with pytest.raises(errors.StorageError):
            lines.append([{"step": 2}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lines.append([{"step": 3}])
    assert lines.read() == [{"step": 1}, {"step": 3}]


# --- environment ---


def test_only_variables_on_the_list_are_recorded():
    secrets = {"AWS_SECRET_ACCESS_KEY": "x", "WANDB_API_KEY": "x", "HOME": "/root", "MY_JAX_TOKEN": "x"}
    useful = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0", "METARUN_DATA": "/data"}
    assert environment.select_variables(secrets | useful) == useful


def test_the_environment_of_a_run_holds_no_other_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_PASSWORD", "correct horse battery staple")
    monkeypatch.setenv("XLA_FLAGS", "--xla_example")
    with RunDirectory.open(tmp_path, resume=False) as run:
        run.write_environment(["metarun", "train", "a.yaml"], ["cpu:0"])
    text = (tmp_path / "environment.json").read_text()
    assert "battery" not in text
    content = json.loads(text)
    assert content["variables"]["XLA_FLAGS"] == "--xla_example"
    assert content["argv"] == ["metarun", "train", "a.yaml"]
    assert content["devices"] == ["cpu:0"]
    assert content["versions"]["numpy"] == np.__version__


def test_the_commit_of_the_working_directory_is_recorded_with_its_changes(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    monkeypatch.chdir(tmp_path)
    assert environment.describe([])["git"]["cwd"] is None
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    assert environment.describe([])["git"]["cwd"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a").write_text("2")
    assert environment.describe([])["git"]["cwd"]["dirty"]
