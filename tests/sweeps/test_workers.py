"""The processes that train: a bounded queue, claims, logs, and what is left of them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from helpers import sweeps
from metarun.signals import Stopped
from metarun.sweeps import workers
from metarun.sweeps.programs import Program
from metarun.sweeps.workers import Slot

PROGRAMS = [Program(f"000-0-00{place}", []) for place in range(4)]
FINISH = "mkdir -p run && echo '{}' > run/result.json"


@pytest.fixture
def sweep(tmp_path):
    opened = sweeps.open_sweep(tmp_path, sweeps.ask(tmp_path, "seed=0..1"))
    for program in PROGRAMS:
        opened.find_program(program.name).mkdir()
    return opened


def play(monkeypatch, script: str) -> list[tuple[str, Slot]]:
    """Let a shell script stand for each training; return the list of what is started."""
    started: list[tuple[str, Slot]] = []

    def start(sweep, program, slot):
        started.append((program.name, slot))
        command = script.replace("NAME", program.name)
        return subprocess.Popen(["sh", "-c", command], cwd=sweep.find_program(program.name))

    monkeypatch.setattr(workers, "start", start)
    monkeypatch.setattr(workers, "LONG_PAUSE", 0.02)
    return started


def test_no_more_processes_run_than_there_are_places(sweep, monkeypatch):
    started = play(monkeypatch, f"sleep 0.1; {FINISH}")
    events = []
    report = workers.Report(lambda program, _: events.append(1), lambda *_: events.append(-1))
    outcome = workers.train(sweep, PROGRAMS, [Slot("0"), Slot("3")], report, wait=True)
    assert outcome == ({}, 0)
    assert [name for name, _ in started] == [program.name for program in PROGRAMS]
    assert {slot.device for _, slot in started} == {"0", "3"}
    assert max(sum(events[:place]) for place in range(len(events))) == 2


def test_what_fails_is_noted_and_the_others_are_trained(sweep, monkeypatch):
    started = play(monkeypatch, f"[ NAME = 000-0-001 ] && exit 9; {FINISH}")
    outcome = workers.train(sweep, PROGRAMS, [Slot(None)], workers.Report(), wait=True)
    assert outcome.failed == {"000-0-001": 9}
    assert len(started) == 4
    assert workers.train(sweep, PROGRAMS, [Slot(None)], workers.Report(), wait=True).failed
    assert len(started) == 5  # the one that failed is tried again


def test_a_run_directory_that_is_still_held_is_tried_again(sweep, monkeypatch):
    started = play(
        monkeypatch, f"[ -e tried ] && {{ {FINISH}; exit 0; }}; touch tried; exit {workers.IN_USE}"
    )
    outcome = workers.train(sweep, PROGRAMS[:1], [Slot(None)], workers.Report(), wait=True)
    assert (outcome.failed, len(started)) == ({}, 2)


def test_what_another_process_trains_is_left_to_it(sweep, monkeypatch):
    started = play(monkeypatch, FINISH)
    claim = sweep.claim(PROGRAMS[1].name)
    assert claim is not None
    assert sweep.claim(PROGRAMS[1].name) is None
    outcome = workers.train(sweep, PROGRAMS, [Slot(None)], workers.Report(), wait=False)
    assert outcome.elsewhere == 1
    assert PROGRAMS[1].name not in [name for name, _ in started]
    threading.Timer(0.2, os.close, [claim]).start()
    assert workers.train(sweep, PROGRAMS, [Slot(None)], workers.Report(), wait=True) == ({}, 0)
    assert started[-1][0] == PROGRAMS[1].name


def test_a_signal_is_passed_on_and_waited_for(sweep, monkeypatch):
    play(monkeypatch, "trap 'echo saved > saved; exit 143' TERM; while :; do sleep 0.02; done")
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
    with pytest.raises(Stopped):
        workers.train(sweep, PROGRAMS, [Slot(None)], workers.Report(), wait=True)
    assert (sweep.find_program(PROGRAMS[0].name) / "saved").exists()


def test_a_program_is_a_metarun_train_of_its_own_that_sees_one_device(sweep, monkeypatch):
    called = {}
    really = subprocess.Popen

    def note(command, **options):
        called.update(options, command=command)
        return really(["true"])

    monkeypatch.setattr(workers.subprocess, "Popen", note)
    workers.start(sweep, PROGRAMS[0], Slot("2")).wait()
    folder = sweep.find_program(PROGRAMS[0].name)
    expected = [sys.executable, "-m", "metarun", "train", str(folder / "config.yaml")]
    assert called["command"] == [*expected, "--run-dir", str(folder / "run"), "--resume"]
    assert called["env"]["CUDA_VISIBLE_DEVICES"] == "2"
    assert (folder / workers.LOG).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_process_ends_with_the_one_that_started_it():
    code = (
        "import subprocess, time; from metarun.sweeps import workers;"
        "child = subprocess.Popen(['sleep', '60'], preexec_fn=workers.die_with_parent);"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(200):
        try:
            with open(f"/proc/{child}/stat") as file:  # noqa: PTH123
                if file.read().split()[2] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    raise AssertionError("the child goes on")


def test_every_gpu_has_one_process_and_a_cpu_any_number(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 5,7")
    assert workers.name_devices(3) == ["4", "5", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert workers.make_slots(5, workers.name_devices(2)) == [Slot("0"), Slot("1")]
    assert workers.make_slots(2, None) == [Slot(None), Slot(None)]
