"""The command line: exit codes, three-line errors, and what goes to stdout and what to stderr."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import metarun
from helpers.commands import Said, assert_three_lines, run_process
from helpers.runs import SINGLE, measured, read_json
from metarun import assembly, config, errors, experiment, plugins
from metarun.cli import failures
from metarun.cli.train import name_config
from metarun.data import observers
from metarun.evaluation import measurement
from metarun.finished import remeasurement
from metarun.finished.finished_run import find_run
from metarun.runs import manifest
from metarun.runs.directory import RunDirectory

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")
ESCAPE = "\x1b"


@pytest.fixture
def config_file(tmp_path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SINGLE)
    return file


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    """Runs draw no pictures: these take half of the time of so small a run."""
    monkeypatch.setattr(experiment, "draw_pictures", lambda *_: None)


# Exit codes


def test_an_unknown_plug_in_is_a_usage_error_that_suggests_the_nearest(metarun_):
    said = metarun_("list", "mamml")
    assert_three_lines(said, 2, "mamml", "did you mean maml?")
    assert len(said.err) == 3


@pytest.mark.parametrize("arguments", [["train"], ["trian"], ["train", "x.yaml", "--bogus"], ["eval"]])
def test_a_command_line_that_cannot_be_parsed_exits_with_2(metarun_, arguments):
    said = metarun_(*arguments)
    assert said.code == 2
    assert not any("Traceback" in line for line in said.err)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.stepz=3", ["stepz", "steps"]),
        ("training.steps=0", ["training.steps"]),
        ("model={name: conv4}", ["pictures"]),
        ("evaluation.ways=3", ["evaluation.ways"]),
    ],
)
def test_a_wrong_config_exits_with_3(metarun_, config_file, override, words):
    assert_three_lines(metarun_("train", config_file, override, "--run-dir", "run"), 3, *words)


def test_a_config_that_is_not_there_exits_with_3(metarun_):
    assert_three_lines(metarun_("train", "absent.yaml"), 3, "absent.yaml")


def test_missing_data_exits_with_4_and_says_how_to_get_it(metarun_, config_file, monkeypatch, tmp_path):
    monkeypatch.setenv("METARUN_DATA", str(tmp_path / "nothing"))
    config_file.write_text(SINGLE.replace("{name: sinusoid, shots: 5, queries: 5}", "{name: omniglot}"))
    said = metarun_("train", config_file, "--run-dir", "run")
    assert_three_lines(said, 4, "metarun data fetch omniglot")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_exits_with_5(metarun_, tmp_path):
    assert_three_lines(metarun_("eval", tmp_path), 5, str(tmp_path))


def test_a_damaged_checkpoint_that_was_asked_for_exits_with_5(metarun_, single, tmp_path):
    shutil.copytree(single, "copy")
    folder = tmp_path / "copy/checkpoints/maml/24"
    files = [path for path in (folder / manifest.WEIGHTS).rglob("*") if path.is_file()]
    biggest = max(files, key=lambda path: path.stat().st_size)
    biggest.write_bytes(biggest.read_bytes()[:-1])
    assert_three_lines(metarun_("eval", folder), 5, str(folder))


def test_a_run_that_is_there_already_exits_with_6(metarun_, single, config_file):
    assert_three_lines(metarun_("train", config_file, "--run-dir", single), 6, "--resume")


@pytest.mark.slow
def test_a_second_process_on_a_run_exits_with_6_and_names_the_first(config_file, tmp_path):
    with RunDirectory.open(tmp_path / "run", False):
        said = run_process("train", config_file, "--run-dir", tmp_path / "run", "--resume")
    assert_three_lines(said, 6, str(os.getpid()))


def test_a_run_that_diverges_exits_with_7_and_says_what_to_lower(metarun_, config_file):
    said = metarun_("train", config_file, "algorithm.inner_lr=1e20", "--run-dir", "run")
    assert_three_lines(said, 7, "stage maml, step 1", "inner_lr")
    assert said.out == []


def test_a_place_that_cannot_be_written_exits_with_8(metarun_, config_file, tmp_path):
    said = metarun_("train", config_file, "--run-dir", tmp_path / ("long" * 100))
    assert_three_lines(said, 8, "too long")


@pytest.mark.parametrize(
    "words", [["--help"], ["list", "maml"], ["train", "small.yaml", "--print-config"], ["data", "list"]]
)
def test_an_output_that_takes_no_more_exits_with_8(config_file, words):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "metarun", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert_three_lines(Said(done.returncode, [], done.stderr.splitlines()), 8, "No space left")
    assert len(done.stderr.splitlines()) == 3


def test_a_reader_that_has_left_is_no_error(config_file):
    command = f"{sys.executable} -m metarun list | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == "Task families:\n" and done.stderr == ""


def test_a_config_that_is_refused_late_leaves_no_run_directory(metarun_, config_file):
    assert_three_lines(metarun_("train", config_file, "evaluation.ways=3"), 3, "has no ways")
    assert not Path("runs").exists()
    Path("runs/small/other").mkdir(parents=True)
    assert metarun_("train", config_file, "evaluation.ways=3").code == 3
    assert metarun_("train", config_file, "evaluation.ways=3", "--run-dir", "place/run").code == 3
    assert [path.name for path in Path("runs/small").iterdir()] == ["other"]
    assert list(Path("place").iterdir()) == []


def test_a_config_that_is_refused_on_resume_leaves_the_run(metarun_, single, config_file, tmp_path):
    run = shutil.copytree(single, tmp_path / "copy")
    before = sorted(path.name for path in run.rglob("*"))
    assert metarun_("train", config_file, "seed=9", "--resume", "--run-dir", run).code == 3
    assert sorted(path.name for path in run.rglob("*")) == before


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_an_accelerator_that_is_not_there_exits_with_9(metarun_, config_file, platform):
    said = metarun_("train", config_file, f"accelerator.platform={platform}", "--run-dir", "run")
    assert_three_lines(said, 9, f"no {platform}", "accelerator.platform=auto")
    assert not Path("run").exists()


def test_too_little_memory_exits_with_9_and_says_what_needs_less(metarun_, config_file, monkeypatch):
    def exhausted(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmore\nmore")

    monkeypatch.setattr(experiment, "train", exhausted)
    assert_three_lines(metarun_("train", config_file), 9, "training.task_chunk")


def test_a_bug_exits_with_1_in_three_lines_that_say_how_to_see_more(metarun_, config_file, monkeypatch):
    def broken(*_):
        raise KeyError("first line\nsecond line")

    monkeypatch.setattr(experiment, "train", broken)
    said = metarun_("train", config_file)
    assert_three_lines(said, 1, "bug", "KeyError", Path(__file__).name, "METARUN_DEBUG=1")
    assert len(said.err) == 3
    monkeypatch.setenv("METARUN_DEBUG", "1")
    assert any("Traceback" in line for line in metarun_("train", config_file).err)


def test_an_interrupt_outside_of_the_training_exits_with_130(metarun_, config_file, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "train", interrupted)
    said = metarun_("train", config_file)
    assert said.code == 128 + signal.SIGINT
    assert not any("Traceback" in line for line in said.err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_one_line_that_says_how_to_go_on(number, capsys):
    from metarun import signals

    assert failures.report(signals.Stopped(number)) == 128 + number
    assert capsys.readouterr().err.count("\n") == 1


def test_every_class_of_errors_has_its_own_exit_code():
    codes = [kind.exit_code for kind in errors.MetarunError.__subclasses__()]
    assert sorted(codes) == list(range(2, 10))


# What is printed, and where


def test_train_prints_the_result_and_the_run_directory_last_and_progress_to_stderr(
    metarun_, config_file, no_pictures
):
    said = metarun_("train", config_file, "--run-dir", "place/run")
    assert said.code == 0
    assert said.out[-1] == "place/run"
    assert said.out[0].split() == ["stage", "mode", "learner", "loss"]
    digest = read_json(Path("place/run/result.json"))["episodes"]["hash"]
    assert digest in said.out[-2]
    assert any("step 24/24" in line for line in said.err)
    assert ESCAPE not in "".join([*said.out, *said.err])


def test_without_a_place_a_run_goes_under_the_name_of_its_config_and_resume_finds_it(
    metarun_, config_file, no_pictures
):
    first = metarun_("train", config_file, "training.steps=4")
    assert first.out[-1].startswith("runs/small/")
    again = metarun_("train", config_file, "training.steps=4", "--resume")
    assert again.out == first.out
    assert len(list(Path("runs/small").iterdir())) == 1


def test_eval_prints_one_json_object_and_nothing_else(metarun_, single):
    said = metarun_("eval", single, "--json")
    assert (said.code, len(said.out)) == (0, 1)
    result = json.loads(said.out[0])
    assert set(result.pop("ceiling")) == {"loss"}
    assert result == measured(single)


def test_eval_prints_the_table_that_training_printed(metarun_, single):
    said = metarun_("eval", single)
    assert said.code == 0
    assert said.out[0].split() == ["stage", "mode", "learner", "loss"]
    assert [line.split()[:3] for line in said.out[1:3]] == [
        ["maml", "inductive", "unadapted"],
        ["maml", "inductive", "adapted"],
    ]


def test_eval_of_another_split_and_step_says_so(metarun_, single):
    folder = min((single / "checkpoints/maml").iterdir(), key=lambda path: int(path.name))
    said = metarun_("eval", folder, "--split", "validation", "--json")
    result = json.loads(said.out[0])
    assert (result["split"], result["step"]) == ("validation", int(folder.name))


def test_eval_refuses_a_change_of_what_was_trained(metarun_, single):
    assert_three_lines(metarun_("eval", single, "seed=1"), 3, "seed")


def test_a_result_that_is_not_finite_is_still_json(metarun_, single, monkeypatch):
    result = read_json(single / "result.json")
    result["stages"]["maml"]["inductive"]["adapted"]["loss"] = {"mean": float("inf"), "ci95": float("nan")}
    monkeypatch.setattr(remeasurement, "measure", lambda *_: result)
    said = metarun_("eval", single, "--json")
    assert said.code == 0
    loss = json.loads(said.out[0], parse_constant=pytest.fail)["stages"]["maml"]["inductive"]["adapted"][
        "loss"
    ]
    assert loss == {"mean": "inf", "ci95": "nan"}
    assert metarun_("eval", single).code == 0


def test_numbers_that_are_not_finite_are_named_in_the_result(metarun_, single):
    command = ["eval", single, "evaluation.adapted_steps=3", "evaluation.episodes=4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurement, "score_columns", spoil_adapted(measurement.score_columns))
        table, found = metarun_(*command), metarun_(*command, "--json")
    assert "not finite in 2 episodes" in table.out[2] and "nan" not in "\n".join(table.out)
    assert table.out[1].split()[2] == "unadapted" and "not finite" not in table.out[1]
    assert table.out[-1].startswith("not finite: ")
    loss = json.loads(found.out[0])["stages"]["maml"]["inductive"]["adapted"]["loss"]
    assert loss == {"mean": "nan", "ci95": "nan", "not_finite": 2}


def spoil_adapted(score):
    """Make a `score_columns` whose second variant, the adapted learner, overflows in two episodes."""
    calls = iter([False, True] * 2)

    def spoil(*arguments):
        scored = score(*arguments)
        if next(calls):
            scored = {name: np.where(np.arange(4) < 2, np.nan, column) for name, column in scored.items()}
        return scored

    return spoil


def test_the_printed_config_is_the_config(metarun_, config_file, tmp_path):
    said = metarun_("train", config_file, "seed=7", "--print-config")
    assert said.code == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text("\n".join(said.out) + "\n")
    assert config.load(printed) == config.load(config_file, ["seed=7"])
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_trains_nothing_and_writes_nothing(metarun_, config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "train", lambda *_: pytest.fail("trained"))
    said = metarun_("train", config_file, "--dry-run")
    assert said.code == 0
    assert "24 steps" in said.out[0]
    assert [path.name for path in tmp_path.iterdir()] == [config_file.name]


def test_help_and_a_wrong_config_answer_without_importing_jax(config_file):
    file = str(config_file)
    commands = [["--help"], ["train", file, "training.stepz=3"], ["list"], ["train", file, "--print-config"]]
    code = f"""
import sys
from metarun import cli
for arguments in {commands!r}:
    sys.argv[:] = ["metarun", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        print("exit", end.code)
print("heavy", sorted({{"jax", "flax", "optax", "orbax", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert [line for line in done.stdout.splitlines() if line.startswith("exit")] == [
        "exit 0",
        "exit 3",
        "exit 0",
        "exit 0",
    ]
    assert done.stdout.splitlines()[-1] == "heavy []"


@pytest.mark.parametrize("command", ["eval", "online", "embed"])
def test_the_override_that_help_names_is_taken(metarun_, single, command):
    words = " ".join(metarun_(command, "--help").out).split()
    (example,) = [word.rstrip(".") for word in words if re.fullmatch(r"[a-z.]+=\w+\.?", word)]
    assert find_run(single, [example]).config.evaluation.shots == 5


def test_work_on_data_is_shown_by_every_command_that_builds_a_family(
    metarun_, single, config_file, monkeypatch
):
    def build(*_):
        observers.current_observer()(46, 46, "decoding")
        raise errors.DataError("enough", "here", "stop")

    for name in ("build_tasks", "outline_tasks"):
        monkeypatch.setattr(assembly, name, build)
    Path("s.csv").write_text("1,1\n2,1\n")
    for words in (
        ["train", config_file, "--dry-run"],
        ["train", config_file, "--dry-run", "--cost"],
        ["train", config_file, "--run-dir", "run"],
        ["eval", single],
        ["predict", single, "--support", "s.csv", "--query", "s.csv"],
        ["embed", single],
        ["online", single],
        ["doctor"],
    ):
        said = metarun_(*words)
        assert said.code == 4 and any(line.startswith("decoding: 46 of 46") for line in said.err), words


def test_help_lists_the_commands(metarun_):
    said = metarun_("--help")
    assert said.code == 0
    words = " ".join(said.out).split()
    assert {"train", "eval", "compare", "table", "list", "data", "doctor"} <= set(words)
    assert ESCAPE not in "".join(said.out)


def test_the_version_is_printed(metarun_):
    assert metarun_("--version").out == [f"metarun {metarun.__version__}"]


def test_list_has_a_line_for_every_plug_in(metarun_):
    lines = metarun_("list").out
    for kind in plugins.FOLDERS:
        for name in plugins.list_names(kind):
            summary = plugins.read_summary(kind, name)
            assert any(line.split()[:1] == [name] and line.endswith(summary) for line in lines)


def test_list_of_a_plug_in_has_its_options_with_default_and_meaning(metarun_):
    said = metarun_("list", "maml")
    assert said.code == 0
    for field in plugins.list_fields("algorithm", "maml"):
        assert any(line.split()[:1] == [field.name] and field.comment in line for line in said.out)


def test_data_list_says_what_is_missing(metarun_, monkeypatch, tmp_path):
    monkeypatch.setenv("METARUN_DATA", str(tmp_path))
    said = metarun_("data", "list")
    assert said.code == 0
    assert "missing" in " ".join(said.out)
    assert str(tmp_path) in said.out[-1]


def test_data_verify_exits_with_4_where_files_are_missing(metarun_, monkeypatch, tmp_path):
    monkeypatch.setenv("METARUN_DATA", str(tmp_path))
    assert_three_lines(metarun_("data", "verify", "omniglot"), 4, "metarun data fetch omniglot")


def test_a_file_that_is_missing_is_not_called_altered(metarun_, monkeypatch, tmp_path):
    monkeypatch.setenv("METARUN_DATA", str(tmp_path))
    assert metarun_("data", "verify", "omniglot").err[0] == "error: 2 of 2 files of omniglot are missing"
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot/images_background.zip").write_bytes(b"something else")
    said = metarun_("data", "verify", "omniglot")
    assert said.err[0] == "error: 1 of 2 files of omniglot is missing, 1 is not as published"
    (tmp_path / "omniglot/images_evaluation.zip").write_bytes(b"something else")
    said = metarun_("data", "verify", "omniglot")
    assert said.err[0] == "error: 2 of 2 files of omniglot are not as published"


def test_data_verify_accepts_the_published_files(metarun_, data_root):
    said = metarun_("data", "verify", "mnist")
    assert said.code == 0
    assert all("ok" in line.split() for line in said.out)


@pytest.mark.slow
def test_the_doctor_finds_all_well_and_leaves_nothing(metarun_, tmp_path):
    said = metarun_("doctor")
    assert said.code == 0, said
    assert said.out[-1] == "all is well"
    for word in ("metarun", "python", "jax", "cache", "devices", "smoke"):
        assert any(line.startswith(word) for line in said.out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("small.yaml", "small"),
        ("some/where/small.yaml", "small"),
        ("configs/omniglot/5way-1shot/maml.yaml", "omniglot-5way-1shot-maml"),
        ("/opt/configs/sinusoid/maml.yaml", "sinusoid-maml"),
        ("configs/old/configs/deep/er.yaml", "deep-er"),
        ("two words & more.yaml", "two-words-more"),
        ("v1.2.yaml", "v1-2"),
        ("-_.yaml", "run"),
        ("übung.yaml", "bung"),
    ],
)
def test_a_run_is_named_after_its_config(path, name):
    assert name_config(Path(path)) == name
