"""`metarun runs`, and the names of runs that all commands take."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import assert_three_lines
from helpers.finished_runs import COUNT, make_run
from helpers.runs import SINGLE, read_json
from metarun import experiment, signals
from metarun.cli import runs as runs_command
from metarun.runs import catalogue

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")
CONFIG = (
    "task: {{name: sinusoid}}\nalgorithm: {{name: maml, inner_lr: {}}}\ntraining: {{steps: 9}}\nseed: 0\n"
)
NAMES = ("small/20260101-000000-aaaa", "small/20260102-000000-bbbb")


@pytest.fixture
def two() -> list[Path]:
    """Two finished runs of one config below runs/."""
    return [
        make_run(Path("runs") / name, np.arange(COUNT) * rate, config=CONFIG.format(rate))
        for name, rate in zip(NAMES, (0.1, 0.2), strict=True)
    ]


def test_the_list_has_a_line_for_each_run_and_for_what_is_none(metarun_, two):
    Path("runs/notes").mkdir()
    Path("runs/notes/a.txt").touch()
    said = metarun_("runs", "--sort", "accuracy")
    assert said.code == 0
    assert said.out[0].split("  ")[0] == "run"
    assert [line.split()[:2] for line in said.out[1:3]] == [[NAMES[0], "done"], [NAMES[1], "done"]]
    assert "accuracy -1.4500 ± 0.5000" in said.out[1]
    assert said.out[1].endswith("inner_lr=0.1")
    assert said.out[3].split() == ["notes", *["no", "run", "there", "is", "no", "run", "here"]]
    assert said.out[-1] == "2 runs, 1 folder without a run"


def test_the_list_is_one_json_object(metarun_, two):
    choice = ("--where", "algorithm.inner_lr=0.2", "--json")
    said = [metarun_("runs", word, *choice).out for word in ("runs", "list")]
    listed, again = (json.loads(*lines) for lines in said)
    assert [run["path"] for run in listed["runs"]] == [str(two[1])]
    for run in [*listed["runs"], *again["runs"]]:
        assert run.pop("age_seconds") >= 0  # it goes on between the two calls
    assert again == listed


def test_an_empty_place_has_no_runs(metarun_):
    Path("runs").mkdir()
    assert metarun_("runs").out == ["0 runs"]
    assert_three_lines(metarun_("runs", "absent"), 5, "absent")
    assert "rm" in " ".join(metarun_("runs", "--help").out)


def test_the_list_imports_no_jax(two):
    code = "import sys; from metarun import cli\nsys.argv[:] = ['metarun', 'runs']\ntry: cli.main()\n"
    code += "except SystemExit: print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-2:] == ["2 runs", "False"], done


def test_rm_asks_and_removes_only_after_yes(metarun_, two, monkeypatch):
    assert_three_lines(metarun_("runs", "rm", "aaaa"), 2, "--yes")  # nobody to ask
    monkeypatch.setattr(runs_command, "is_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\ny\n"))
    assert metarun_("runs", "rm", "aaaa").code == 1
    assert two[0].exists()
    said = metarun_("runs", "rm", "aaaa")
    assert said.code == 0
    assert said.out[-1].endswith(f"[y/N]: removed {two[0]}")
    assert [path.exists() for path in two] == [False, True]


def test_rm_removes_nothing_if_one_run_is_refused(metarun_, two):
    Path("link").symlink_to(two[0].absolute())
    assert_three_lines(metarun_("runs", "rm", "--yes", "bbbb", "link"), 6, "a link")
    assert_three_lines(metarun_("runs", "rm", "--yes", "small"), 2, "any of 2 runs")
    assert all(path.exists() for path in two)
    assert metarun_("runs", "rm", "--yes", *two).code == 0
    assert not Path("runs/small").exists()


def test_rm_of_a_run_of_another_machine_needs_a_person(metarun_, two):
    status = read_json(two[0] / "status.json") | {"status": "running", "host": "elsewhere", "pid": 7}
    (two[0] / "status.json").write_text(json.dumps(status))
    assert_three_lines(metarun_("runs", "rm", "--yes", "aaaa"), 6, "process 7 on elsewhere")


def test_compare_takes_names_and_labels_runs_by_what_differs(metarun_, two):
    said = metarun_("compare", "aaaa", "latest")
    assert said.code == 0
    assert "small inner_lr=0.1" in said.out[1]
    assert "small inner_lr=0.2" in said.out[2]


@pytest.mark.parametrize(
    "command", [["eval"], ["online"], ["embed"], ["predict", "--support", "."], ["train", "--resume"]]
)
def test_all_commands_find_runs_by_one_resolver(metarun_, two, command):
    assert_three_lines(metarun_(*command, "2026"), 2, "any of 2 runs", str(two[0]))


# Going on with a run


@pytest.fixture
def begun(metarun_, monkeypatch) -> Path:
    """A run that was begun with overrides and stopped after its first stage was trained."""
    monkeypatch.setattr(experiment, "draw_pictures", lambda *_: None)
    Path("small.yaml").write_text(SINGLE)
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "evaluate", stop)
        said = metarun_("train", "small.yaml", "training.steps=4", "seed=3")
    assert said.code == 143
    run = catalogue.resolve("latest")
    assert (
        said.err[-1] == f"stopped by SIGTERM; what was done is saved: go on with metarun train --resume {run}"
    )
    return run


def stop(*_):
    raise signals.Stopped(15)


def test_a_run_goes_on_without_its_config_and_its_overrides(metarun_, begun):
    Path("small.yaml").unlink()
    assert read_json(begun / "status.json")["status"] == "preempted"
    before = (begun / "config.yaml").read_text()
    assert_three_lines(metarun_("train", "--resume", "latest", "seed=4"), 3, "seed")
    assert_three_lines(metarun_("train", "--resume", begun, "--run-dir", "x"), 2, "--run-dir")
    assert_three_lines(metarun_("train", "--resume", "smol"), 5, "did you mean small")
    said = metarun_("train", "--resume", "small")
    assert (said.code, said.out[-1]) == (0, str(begun))
    assert (begun / "config.yaml").read_text() == before
    assert read_json(begun / "environment.json")["begun"]["argv"][1:3] == ["train", "small.yaml"]


def test_a_second_ctrl_c_says_how_to_go_on_too(metarun_, monkeypatch):
    def interrupt(run_config, path, *_):
        path.mkdir(parents=True)
        (path / "config.yaml").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "train", interrupt)
    Path("small.yaml").write_text(SINGLE)
    said = metarun_("train", "small.yaml", "--run-dir", "two words")
    assert said.code == 130
    assert any(line.endswith("metarun train --resume 'two words'") for line in said.err)
