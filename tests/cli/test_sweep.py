"""`metarun sweep` from the command line: real training in this process, in place of one process for each program."""

import json
import subprocess

import pytest
from PIL import Image

from helpers import sweeps
from helpers.commands import assert_three_lines
from helpers.runs import read_json
from helpers.sweeps import RATE
from metarun import config, experiment
from metarun.progress import Progress
from metarun.runs import strict_json
from metarun.sweeps import probe, workers

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")


@pytest.fixture
def in_process(monkeypatch) -> list[str]:
    """The programs that were trained, in this process; the questions are answered in it, too."""
    trained: list[str] = []

    def train(sweep, listed, *_):
        for program in listed:
            if sweep.find_state(program.name) == "waiting":
                run_config = config.load(sweep.find_program(program.name) / "config.yaml")
                experiment.train(run_config, sweep.find_run(program.name), True, ["test"], Progress())
                trained.append(program.name)
        return workers.Outcome({}, 0)

    def ask(question, run_config, *arguments):
        return json.loads(strict_json.encode(probe.answer(question, run_config, arguments)))

    monkeypatch.setattr(workers, "train", train)
    monkeypatch.setattr(probe, "ask", ask)
    monkeypatch.setattr(experiment, "draw_pictures", lambda *_: None)
    return trained


@pytest.mark.slow
def test_a_sweep_ranks_its_settings_and_the_winner_trains_alone_to_the_same_result(
    metarun_, tmp_path, in_process
):
    file = sweeps.write_base(tmp_path)
    arguments = ("sweep", file, f"{RATE}=0.001,0.03", "seed=0..1", "training.steps=12", "--sweep-dir", "here")
    said = metarun_(*arguments)
    assert said.code == 0, said
    assert in_process == ["000-0-000"]
    assert said.out[-1] == "here"
    assert said.out[0].split()[:3] == [RATE, "loss", "minus"]
    ranking = read_json(tmp_path / "here" / "ranking.json")
    assert len(ranking["ranking"]) == 2
    for name in ("parallel-coordinates.png", "importance.png"):
        with Image.open(tmp_path / "here" / name) as picture:
            assert min(picture.size) > 200

    run_config = config.load(tmp_path / "here" / "winner.yaml")
    alone = experiment.train(run_config, tmp_path / "alone", False, ["test"], Progress())
    swept = ranking["winner"]["test"]
    assert swept["seeds"] == alone["seeds"] == [0, 1]
    assert swept["episodes"] == alone["episodes"]
    for learner, metrics in alone["stages"]["maml"]["inductive"].items():
        same = swept["stages"]["maml"]["inductive"][learner]["loss"]
        assert same["mean"] == pytest.approx(metrics["loss"]["mean"], abs=1e-5)
        assert same["seeds"]["values"] == pytest.approx(metrics["loss"]["seeds"]["values"], abs=1e-5)

    again = metarun_(*arguments, "--json")
    assert again.code == 0
    assert json.loads(again.out[0]) == ranking
    assert in_process == ["000-0-000"]  # nothing is trained again


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(metarun_, tmp_path, in_process):
    file = sweeps.write_base(tmp_path)
    said = metarun_(
        "sweep", file, f"{RATE}=0.1,0.2", "model.hidden=[8],[4]", "seed=0..2", "--halve", "2", "--dry-run"
    )
    assert said.code == 0, said
    assert said.out == [
        "4 settings with 3 seeds each",
        "12 trials in 2 programs, each for 1/4 of the steps",
        "  model.hidden cannot be an argument: it is no number",
        "or in more, if fewer trials fit into the memory",
        "then the best 2 for 1/2 of the steps",
        "then the best 1 for all steps",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.yaml"]


def test_an_array_script_is_the_same_sweep_as_a_worker_of_many(metarun_, tmp_path, in_process):
    file = sweeps.write_base(tmp_path)
    said = metarun_("sweep", file, "model.hidden=[8],[4]", "--sweep-dir", "my sweep", "--slurm")
    assert said.code == 0, said
    assert said.out[-1] == "sbatch 'my sweep/array.sh'"
    script = (tmp_path / "my sweep" / "array.sh").read_text()
    assert "#SBATCH --array=0-1\n" in script
    assert f"metarun sweep {file} 'model.hidden=[8],[4]' " in script
    assert script.rstrip().endswith("--no-wait")
    assert "--slurm" not in script
    subprocess.run(["bash", "-n", str(tmp_path / "my sweep" / "array.sh")], check=True)
    assert in_process == []


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ((f"{RATE}=log(1,2)",), 3, "not three numbers"),
        ((f"{RATE}=1,2", "--jobs", "many"), 2, "--jobs cannot be many"),
        ((), 2, "nothing to try"),
    ],
)
def test_what_cannot_be_swept_is_said_in_three_lines(metarun_, tmp_path, arguments, code, word):
    assert_three_lines(metarun_("sweep", sweeps.write_base(tmp_path), *arguments), code, word)
