"""The shell scripts, with stand-ins for Python, pip, uv and nvidia-smi on PATH: nothing is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = "bash basename cat cksum cp dirname env find flock grep ls mkdir mv readlink rm sleep touch"
EXPERIMENTS = ROOT / "experiments"
SHELL_FILES = sorted([*(ROOT / "scripts").glob("*.sh"), *EXPERIMENTS.glob("*.sh"), ROOT / ".ci" / "run"])

# Notes every call; `-m venv` and `-m pip` leave what the real ones leave, as far as the scripts look at it.
PYTHON = """#!/usr/bin/env bash
echo "python $*" >>"$CALLS"
case "$1 ${2-}" in
    "-c "*) exit "${PYTHON_UNSUITABLE-0}" ;;
    "-m venv")
        mkdir -p "$3/bin"
        touch "$3/pyvenv.cfg"
        cp "$0" "$3/bin/python"
        ;;
    "-m pip")
        [[ $3 != install ]] || sleep "${PIP_SECONDS-0}"
        [[ $3 != install ]] || [[ -z ${PIP_KILLS-} ]] || kill -9 "$PPID"
        [[ $3 != install ]] || [[ -z ${PIP_FAILS-} ]] || exit 1
        cp "${METARUN_STAND_IN}" "$(dirname "$0")/metarun"
        ;;
    "-m pytest") printf '%s\\n' "$PWD" "${@:3}" ${METARUN_FAULT_LONG:+long} >"$ARGUMENTS" ;;
esac
"""
METARUN = """#!/usr/bin/env bash
printf '%s\\n' "$PWD" "$@" >"$ARGUMENTS"
"""
UV = """#!/usr/bin/env bash
echo "uv $*" >>"$CALLS"
case "$1" in
    venv)
        mkdir -p "${@: -1}/bin"
        cp "$STAND_IN_PYTHON" "${@: -1}/bin/python"
        ;;
    pip) cp "${METARUN_STAND_IN}" "$(dirname "$4")/metarun" ;;
esac
"""


class Machine:
    """A fresh machine: a copy of the repository's scripts, and a PATH with nothing on it but stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repository, self.tools = folder, folder / "a clone", folder / "tools"
        self.home = folder / "caller's folder"
        self.tools.mkdir()
        self.home.mkdir()
        shutil.copytree(
            ROOT / "scripts", self.repository / "scripts", ignore=shutil.ignore_patterns("__pycache__")
        )
        (self.repository / "configs").mkdir()
        (self.repository / "configs" / "known.yaml").touch()
        (self.repository / "pyproject.toml").write_text("[project]\n")
        for tool in TOOLS.split():  # macOS has no flock
            if found := shutil.which(tool):
                (self.tools / tool).symlink_to(found)
        self.add("metarun-stand-in", METARUN)
        self.add("python3.12", PYTHON)
        self.calls, self.arguments = folder / "calls", folder / "arguments"

    def add(self, name: str, script: str) -> Path:
        """Put a program on PATH."""
        path = self.tools / name
        path.write_text(script)
        path.chmod(0o755)
        return path

    def add_driver(self, report: str, exit_code: int = 0) -> None:
        """Let nvidia-smi answer so."""
        self.add("nvidia-smi", f"#!/usr/bin/env bash\necho '{report}'\nexit {exit_code}\n")

    def start(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen:
        """Run a script from the caller's folder."""
        self.arguments.unlink(missing_ok=True)
        environment = {
            "PATH": str(self.tools),
            "CALLS": str(self.calls),
            "ARGUMENTS": str(self.arguments),
            "METARUN_STAND_IN": str(self.tools / "metarun-stand-in"),
            "STAND_IN_PYTHON": str(self.tools / "python3.12"),
        }
        return subprocess.Popen(
            [self.repository / "scripts" / script, *arguments],
            cwd=self.home,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of a script that was run from the caller's folder."""
        with self.start(script, *arguments, **variables) as process:
            stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, stderr

    def succeed(self, script: str, *arguments: str, **variables: str) -> list[str]:
        """The folder and the arguments that metarun or pytest was run with."""
        code, stdout, stderr = self.run(script, *arguments, **variables)
        assert code == 0, stderr
        assert stdout == ""  # it belongs to metarun
        return self.arguments.read_text().splitlines()

    def installs(self) -> list[str]:
        """Every call that installed the package."""
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [call for call in calls if "pip install" in call]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: path.name)
def test_every_shell_file_parses_and_stops_at_the_first_error(path):
    subprocess.run(["bash", "-n", path], check=True)
    sourced = path.name.startswith("_")
    assert sourced or "set -euo pipefail" in path.read_text()
    assert sourced or os.access(path, os.X_OK)


def test_the_experiments_train_configs_that_exist():
    def list_runs(name: str) -> list[str]:
        command = [EXPERIMENTS / name, "--list"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()

    files = [line.split("  ")[2] for line in list_runs("gradient_learners.sh")]
    files += [f"configs/{name}.yaml" for name in list_runs("results_table.sh")]
    assert len(files) > 50 and [file for file in files if not (ROOT / file).is_file()] == []


def test_a_row_that_the_tables_do_not_have_is_refused_before_anything_trains():
    command = [EXPERIMENTS / "results_table.sh", "sinusoid/maml", "sinusoid/mamml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[1] == "where: sinusoid/mamml" and done.stderr.count("\n") == 3


def test_a_fresh_machine_gets_an_environment_and_the_arguments_reach_metarun(machine):
    (machine.home / "mine.yaml").touch()
    folder, *arguments = machine.succeed("train.sh", "mine.yaml", "task.name=a b", "--resume")
    assert folder == str(machine.home)
    assert arguments == ["train", "mine.yaml", "task.name=a b", "--resume"]
    [install] = machine.installs()
    assert install.endswith(f"--editable {machine.repository}")
    assert (machine.repository / ".venv" / "pyvenv.cfg").exists()


def test_a_config_of_the_repository_is_found_from_any_folder(machine):
    known = machine.repository / "configs" / "known.yaml"
    assert machine.succeed("train.sh", "configs/known.yaml")[1:] == ["train", str(known)]


def test_a_config_in_the_callers_folder_comes_before_that_of_the_repository(machine):
    (machine.home / "configs").mkdir()
    (machine.home / "configs" / "known.yaml").touch()
    assert machine.succeed("train.sh", "configs/known.yaml")[1:] == ["train", "configs/known.yaml"]


def test_an_option_in_place_of_the_config_reaches_metarun(machine):
    assert machine.succeed("train.sh", "--help")[1:] == ["train", "--help"]


def test_a_link_to_a_script_finds_its_repository(machine):
    link = machine.repository / "scripts" / "link"
    link.symlink_to(machine.repository / "scripts" / "train.sh")
    target = machine.home / "link"
    link.rename(target)
    process = machine.start(str(target), "configs/known.yaml")
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), 2), (("no.yaml",), 3), (("/no.yaml",), 3)],
    ids=["none", "relative", "absolute"],
)
def test_a_missing_config_is_refused_in_three_lines_before_anything_is_installed(machine, arguments, code):
    given, _, stderr = machine.run("train.sh", *arguments)
    assert given == code
    assert [line.partition(":")[0] for line in stderr.splitlines()] == ["error", "where", "to do"]
    assert not machine.installs()


@pytest.mark.parametrize("variables", [{}, {"METARUN_PYTHON": "/no/python"}], ids=["on PATH", "chosen"])
def test_without_a_suitable_python_the_scripts_say_so_in_three_lines(machine, variables):
    code, _, stderr = machine.run("test.sh", PYTHON_UNSUITABLE="1", **variables)
    assert code == 2
    assert [line.partition(":")[0] for line in stderr.splitlines()] == ["error", "where", "to do"]
    assert "3.11, 3.12 or 3.13" in stderr


def test_the_suitable_versions_are_those_that_metarun_supports(machine):
    """The real interpreter is asked the script's own question."""
    machine.add("python3.12", f'#!/usr/bin/env bash\nexec "{sys.executable}" "$@"\n')
    question = 'source "$1/scripts/_environment.sh"; is_suitable python3.12'
    asked = subprocess.run(
        ["bash", "-c", question, "bash", machine.repository], env={"PATH": str(machine.tools)}, check=False
    )
    assert (asked.returncode == 0) == ((3, 11) <= sys.version_info[:2] <= (3, 13))


def test_the_newest_python_is_taken_and_a_chosen_one_instead(machine):
    machine.add("python3.13", PYTHON.replace("python $*", "newest $*"))
    machine.succeed("test.sh")
    assert any(call.startswith("newest -m venv") for call in machine.calls.read_text().splitlines())
    chosen = machine.add("chosen", PYTHON.replace("python $*", "chosen $*"))
    machine.succeed("test.sh", METARUN_PYTHON=str(chosen), METARUN_VENV=str(machine.folder / "other"))
    assert any(call.startswith("chosen -m venv") for call in machine.calls.read_text().splitlines())


@pytest.mark.parametrize(
    ("report", "extra"),
    [
        ("| NVIDIA-SMI 580.65  Driver Version: 580.65  CUDA Version: 13.0 |", "[cuda13]"),
        ("| NVIDIA-SMI 590.10  KMD Version: 590.10  CUDA UMD Version: 13.1 |", "[cuda13]"),
        ("| NVIDIA-SMI 550.54  Driver Version: 550.54  CUDA Version: 12.4 |", "[cuda12]"),
        ("| NVIDIA-SMI 470.82  Driver Version: 470.82  CUDA Version: 11.4 |", ""),
        ("| NVIDIA-SMI 580.65  Driver Version: 580.65  CUDA Version: N/A |", ""),
    ],
)
def test_the_drivers_cuda_version_chooses_the_extra(machine, report, extra):
    machine.add_driver(report)
    machine.succeed("train.sh", "configs/known.yaml")
    [install] = machine.installs()
    assert install.endswith(f"--editable {machine.repository}{extra}")


def test_a_driver_that_does_not_answer_means_the_cpu(machine):
    machine.add_driver("CUDA Version: 13.0: but the driver is broken", exit_code=9)
    machine.succeed("train.sh", "configs/known.yaml")
    assert machine.installs()[0].endswith(str(machine.repository))


@pytest.mark.parametrize(("extras", "installed"), [("tpu", "[tpu]"), ("", "")])
def test_chosen_extras_come_before_those_of_the_driver(machine, extras, installed):
    machine.add_driver("CUDA Version: 13.0")
    machine.succeed("train.sh", "configs/known.yaml", METARUN_EXTRAS=extras)
    assert machine.installs()[0].endswith(f"--editable {machine.repository}{installed}")


def test_uv_is_used_where_there_is_one(machine):
    machine.add("uv", UV)
    machine.succeed("train.sh", "configs/known.yaml", METARUN_EXTRAS="cuda12")
    inside = machine.repository / ".venv" / "bin" / "python"
    assert machine.installs() == [f"uv pip install --python {inside} --editable {machine.repository}[cuda12]"]


def test_uv_brings_a_python_where_there_is_none(machine):
    (machine.tools / "python3.12").unlink()
    stand_in = machine.folder / "python"
    stand_in.write_text(PYTHON)
    stand_in.chmod(0o755)
    machine.add("uv", UV)
    machine.succeed("train.sh", "configs/known.yaml", STAND_IN_PYTHON=str(stand_in))
    assert "--python 3.12" in machine.calls.read_text()


def test_the_second_time_nothing_is_installed(machine):
    for _ in range(2):
        machine.succeed("train.sh", "configs/known.yaml")
        machine.succeed("test.sh")
    assert len(machine.installs()) == 2  # one for each set of extras, in whatever order they are asked for


def test_a_changed_pyproject_is_installed_again(machine):
    machine.succeed("test.sh")
    with (machine.repository / "pyproject.toml").open("a") as file:
        file.write("# another dependency\n")
    machine.succeed("test.sh")
    assert len(machine.installs()) == 2


def test_a_clone_that_was_moved_is_installed_again(machine):
    machine.succeed("test.sh")
    moved = machine.folder / "moved"
    machine.repository.rename(moved)
    machine.repository = moved
    machine.succeed("test.sh")
    assert machine.installs()[-1].endswith(f"--editable {moved}[test]")


def test_an_installation_that_was_killed_is_built_anew(machine):
    code, _, _ = machine.run("test.sh", PIP_KILLS="yes")
    assert code == -9
    remains = machine.repository / ".venv" / "half a package"
    remains.touch()
    machine.succeed("test.sh")
    assert not remains.exists()
    assert len(machine.installs()) == 2


def test_an_installation_that_failed_is_tried_again_on_what_is_there(machine):
    code, _, stderr = machine.run("test.sh", PIP_FAILS="yes")
    assert code == 1
    assert "error: the installation failed" in stderr
    there = machine.repository / ".venv" / "an installed package"
    there.touch()
    machine.succeed("test.sh")
    assert there.exists()


def test_two_scripts_at_once_install_once(machine):
    processes = [machine.start("test.sh", PIP_SECONDS="0.5") for _ in range(2)]
    outcomes = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outcomes
    assert len(machine.installs()) == 1


def test_a_folder_with_something_else_in_it_is_left_alone(machine):
    letter = machine.home / "letter.txt"
    letter.touch()
    code, _, stderr = machine.run("test.sh", METARUN_VENV=str(machine.home))
    assert code == 2
    assert stderr.startswith("error: the folder is neither empty nor a virtual environment")
    assert list(machine.home.iterdir()) == [letter]


def test_a_relative_environment_belongs_to_the_callers_folder(machine):
    machine.succeed("test.sh", METARUN_VENV="environment")
    assert (machine.home / "environment" / "bin" / "metarun").exists()


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        (
            ("-k", "maml"),
            [
                "--dist",
                "loadfile",
                "--no-loadscope-reorder",
                "-m",
                "not fault and not reproduction and not slow",
                "-k",
                "maml",
            ],
        ),
        (("--fault", "-x"), ["--dist", "worksteal", "-m", "fault", "-x"]),
        (("--fault", "--long", "-x"), ["--dist", "worksteal", "-m", "fault", "-x", "long"]),
        (("--reproduction",), ["-m", "reproduction"]),
        (("--slow",), ["--dist", "worksteal", "-m", "slow"]),
    ],
)
def test_each_suite_runs_in_the_repository_with_the_callers_arguments(machine, arguments, received):
    parallel = ["-n", "auto", "--maxprocesses", "8"]
    assert machine.succeed("test.sh", *arguments) == [str(machine.repository), *parallel, *received]
    assert machine.installs()[0].endswith("[test]")


def test_further_extras_join_those_of_the_tests(machine):
    machine.succeed("test.sh", METARUN_EXTRAS="lint")
    assert machine.installs()[0].endswith("[test,lint]")


def test_the_measurement_of_a_gpu_gets_the_drivers_extra_and_the_callers_arguments(machine):
    machine.add_driver("CUDA Version: 13.0")
    code, _, stderr = machine.run("gpu.sh", "--minutes", "5", "--tiny")
    assert code == 0, stderr
    assert machine.installs()[0].endswith("[cuda13]")
    *_, last = machine.calls.read_text().splitlines()
    assert last == f"python {machine.repository}/bench/gpu.py --minutes 5 --tiny"
