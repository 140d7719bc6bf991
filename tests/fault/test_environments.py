"""Odd surroundings: no home, no place for temporary files, another encoding, a small stack, a clock that jumps, and
compiled programs that something has damaged. Each run is the undisturbed one, or says in three lines what it lacks.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fault.share import seed, share
from helpers.processes import environment
from helpers.runs import SINGLE, assert_same_run, read_json, train
from metarun.progress import Progress

YEAR = 365.25 * 86_400  # seconds
HEADS = ["error", "where", "to do"]
RUN = "läuft"  # the run directory
NOWHERE = "/proc/nowhere"  # nobody can make it, not even root

# Variables that are set, or removed where the value is None.
SURROUNDINGS: dict[str, dict[str, str | None]] = {
    "no home": {"HOME": None, "XDG_CACHE_HOME": None, "METARUN_CACHE": None},
    "a home that is not there": {"HOME": NOWHERE, "XDG_CACHE_HOME": None, "METARUN_CACHE": None},
    "no place for temporary files": {"TMPDIR": NOWHERE, "TEMP": NOWHERE, "TMP": NOWHERE},
    "a cache that cannot be written": {"METARUN_CACHE": NOWHERE},
    "a cache that is a file": {"METARUN_CACHE": "/dev/null"},
    "an ASCII locale": {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "a Latin locale": {
        "LC_ALL": "de_DE.ISO-8859-1",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "latin-1",
    },
    "no terminal": {"TERM": None, "COLUMNS": "1"},
    "no variables": {
        name: None for name in os.environ if name not in ("PATH", "XLA_FLAGS", "PYTHONPATH", "JAX_PLATFORMS")
    },
}


def run_train(
    folder: Path, *limits: str, changes: dict[str, str | None] | None = None, run: str = RUN
) -> subprocess.CompletedProcess:
    """Run `metarun train` with a file whose name has letters that ASCII does not have.

    Args:
      limits: commands of a shell before it.
      changes: of the environment.
      run: the run directory, below the folder.
    """
    folder.mkdir()
    (folder / "größe.yaml").write_text(SINGLE)
    variables = environment() | {"METARUN_CACHE": str(folder.parent / "cache")} | (changes or {})
    command = f'exec "{sys.executable}" -m metarun train größe.yaml --run-dir {run}'
    return subprocess.run(
        ["bash", "-c", "; ".join([*limits, command])],
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        timeout=600,
    )


def describe_fault(
    done: subprocess.CompletedProcess, run: Path, reference: Path, lacks: bool = False
) -> str | None:
    """Return what is wrong with a run; None: it ended as the reference, or said what it lacks.

    Args:
      lacks: whether it may lack something, so that it cannot run.
    """
    said = done.stderr.decode("utf-8", "replace")
    if "Traceback" in said or "bug of metarun" in said:
        return f"exit code {done.returncode}: {said[-1500:]}"
    if done.returncode:
        is_refused = (
            done.returncode == 8 and [line.partition(": ")[0] for line in said.splitlines()[-3:]] == HEADS
        )
        return None if lacks and is_refused else f"exit code {done.returncode}: {said[-1500:]}"
    try:
        assert_same_run(run, reference)
    except AssertionError as difference:
        return f"another result: {difference}"
    return None


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """The run of usual surroundings."""
    folder = tmp_path_factory.mktemp("usual") / "folder"
    done = run_train(folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder / RUN


# Where Python does not spell names in UTF-8. A run whose folder has another letter than ASCII's is refused there.
NAMELESS = ("an ASCII locale", "a Latin locale")


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_run_in_odd_surroundings_is_the_usual_one(tmp_path, attack, reference, name):
    attack.tries += 1
    run = "run" if name in NAMELESS else RUN
    done = run_train(tmp_path / "folder", changes=SURROUNDINGS[name], run=run)
    if fault := describe_fault(done, tmp_path / "folder" / run, reference):
        attack.fail(f"{name}: {fault}")


@pytest.mark.parametrize("name", NAMELESS)
def test_a_run_whose_folder_the_locale_cannot_name_is_refused_before_it_is_made(tmp_path, attack, name):
    attack.tries += 1
    done = run_train(tmp_path / "folder", changes=SURROUNDINGS[name])
    said = done.stderr.decode("utf-8", "replace").splitlines()
    if done.returncode != 8 or [line.partition(": ")[0] for line in said[-3:]] != HEADS:
        attack.fail(f"{name}: exit code {done.returncode}: {said}")
    elif "PYTHONUTF8=1" not in said[-1] or (tmp_path / "folder" / RUN).exists():
        attack.fail(f"{name}: {said}, and {sorted((tmp_path / 'folder').iterdir())} is there")


# What a shell does before; whether the run may then end with exit code 8.
LIMITS = {
    "ulimit -s 1024": False,
    "ulimit -n 64": True,  # jax opens some for each core
    "umask 0777": True,  # nobody but root can write into the run then
    "exec 0<&-": False,
    "ulimit -c 0; cd .": False,
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_run_with_little_is_the_usual_one(tmp_path, attack, reference, limit):
    attack.tries += 1
    done = run_train(tmp_path / "folder", limit)
    if fault := describe_fault(done, tmp_path / "folder" / RUN, reference, LIMITS[limit]):
        attack.fail(f"{limit}: {fault}")


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["forward", "back"])
def test_a_clock_that_jumps_changes_no_run_and_no_budget(tmp_path, attack, monkeypatch, jump):
    """Budgets, the cadence of checkpoints and speeds are measured on a clock that nobody sets."""
    usual, offset = time.time, [0.0]

    class Jump(Progress):
        def advanced(self, stage, step, count, seconds, metrics) -> None:
            offset[0] = jump - offset[0]

    reference = train(tmp_path / "reference")
    monkeypatch.setattr(time, "time", lambda: usual() + offset[0])
    attack.tries += 1
    assert_same_run(train(tmp_path / "run", progress=Jump()), reference)
    budget = ("training.steps=null", "training.seconds=0.5", "training.chunk=null")
    attack.tries += 1
    began = time.monotonic()
    run = train(tmp_path / "budget", SINGLE, *budget, progress=Jump())
    spent = read_json(run / "result.json")["costs"]["maml"]["own"]["seconds"]
    if not 0.3 < spent < 30 or time.monotonic() - began > 120:
        attack.fail(f"half a second of training took {spent} s")


@pytest.mark.parametrize("kind", ["cut short", "emptied", "changed in a byte", "replaced"])
def test_damaged_compiled_programs_are_compiled_again(tmp_path, attack, kind):
    draws = random.Random(f"{seed()} {kind}")
    cache = tmp_path / "cache"
    script = "from metarun import cli, compilation_cache; compilation_cache.SECONDS = 0.0; cli.main()"

    def run(name: str) -> subprocess.CompletedProcess:
        (tmp_path / "run.yaml").write_text(SINGLE)
        command = [
            sys.executable,
            "-c",
            script,
            "train",
            str(tmp_path / "run.yaml"),
            "--run-dir",
            str(tmp_path / name),
        ]
        variables = environment() | {"METARUN_CACHE": str(cache)}
        return subprocess.run(command, env=variables, capture_output=True, timeout=1500)

    assert run("reference").returncode == 0
    sound = {path: path.read_bytes() for path in (cache / "compiled").iterdir() if path.is_file()}
    assert len(sound) > 2
    for number in range(share(1)):
        for path, content in sound.items():
            middle = draws.randrange(1, len(content) - 1)
            damaged = {
                "cut short": content[:middle],
                "emptied": b"",
                "changed in a byte": content[:middle]
                + bytes([content[middle] ^ 0xFF])
                + content[middle + 1 :],
                "replaced": draws.randbytes(len(content)),
            }
            path.write_bytes(damaged[kind])
        attack.tries += len(sound)
        if fault := describe_fault(run(f"run-{number}"), tmp_path / f"run-{number}", tmp_path / "reference"):
            attack.fail(f"programs {kind}: {fault}")
