"""Controls: what is planned for a config, how method and controls are compared, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers import shared_programs
from helpers.commands import assert_three_lines
from helpers.runs import read_json
from metarun import config, errors, experiment
from metarun.cli.control_table import make_neighbour_row, make_row
from metarun.config import shipped
from metarun.finished import neighbours
from metarun.finished.costs import Cost
from metarun.finished.pairwise import Measured
from metarun.runs.directory import RunDirectory
from metarun.sweeps import control_runs, controls, execution, workers
from metarun.sweeps.probe import StageFlops

TEXT = """
task: {name: sinusoid, shots: 5, queries: 5}
stages:
  - {name: members, copies: 2, MAML}
  - name: average
    model: {name: mlp, hidden: [8]}
    algorithm: {name: fusion, members: [members], kind: average}
  - name: weighted
    model: {name: mlp, hidden: [8]}
    algorithm: {name: fusion, members: [members]}
    training: {steps: 4}
evaluation: {episodes: 6}
accelerator: {platform: cpu, devices: 1}
seed: 5
controls:
  - {name: one, says: one network, changes: [stages.members.copies=null], stage: members, against: [average, weighted]}
  - {name: single, says: one member, changes: [stages.members.copies=1]}
""".replace("MAML", "model: {name: mlp, hidden: [8]}, algorithm: {name: maml}, training: {steps: 40}")
SEEDS, EPISODES = 3, 12


def write_config(folder: Path, *pairs: tuple[str, str]) -> Path:
    """Write the config above, with other words in some places."""
    text = TEXT
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    file = folder / "fused.yaml"
    file.write_text(text)
    return file


def finish(folder: control_runs.ControlDirectory, name: str, means: dict[str, float], status="done") -> None:
    """Write what a training of the program would leave: the loss of each stage is a mean, noise that all share, and
    noise of the run alone.
    """
    run_config = config.load(folder.find_program(name) / "config.yaml")
    shared = np.random.default_rng(0).normal(0, 1.0, (SEEDS, EPISODES))
    own = np.random.default_rng(sum(map(ord, name))).normal(0, 0.01, (SEEDS, EPISODES))
    with RunDirectory.open(folder.find_run(name), False) as run:
        run.write_config(config.to_yaml(run_config))
        run.write_status(status)
        if status == "diverged":
            return
        result = {
            "modes": ["inductive"],
            "split": "test",
            "higher_is_better": [],
            "seeds": [run_config.seed + place for place in range(SEEDS)],
            "episodes": {"count": EPISODES, "hash": "abc"},
            "stages": {},
        }
        for stage in run_config.stages:
            if stage.copies is None:
                values = {"inductive/adapted/loss": means.get(stage.name, 9.0) + shared + own}
                run.write_episodes(stage.name, "test", values)
                interval = {"mean": float(values["inductive/adapted/loss"].mean()), "ci95": 0.1}
                result["stages"][stage.name] = {"step": 7, "inductive": {"adapted": {"loss": interval}}}
        run.write_result(result)


# method: average 1.0, weighted 0.8; the other runs by their stage
MEANS: dict[str, dict[str, float]] = {
    "method": {"average": 1.0, "weighted": 0.8},
    "one": {"members": 0.9},
    "single": {"weighted": 0.8},
}


def make_trainer(trained: list[str], failing: tuple[str, ...] = ()) -> Callable:
    """Make what stands for `workers.train`; it notes the programs that it has trained."""

    def train(folder, listed, *_, wait):
        for program in listed:
            if folder.find_state(program.name) == "waiting":
                trained.append(program.name)
                finish(
                    folder,
                    program.name,
                    MEANS[program.name],
                    "diverged" if program.name in failing else "done",
                )
        return workers.Outcome({}, 0)

    return train


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(workers, "train", make_trainer(names))
    monkeypatch.setattr(execution, "find_slots", lambda *_: [workers.Slot(None)])
    return names


def test_method_and_controls_have_three_seeds_and_end_with_the_stage_that_is_compared(tmp_path):
    plan = controls.make_plan(write_config(tmp_path))
    assert [(run.name, run.stage, run.against) for run in plan.runs] == [
        ("method", "weighted", ()),
        ("one", "members", ("average", "weighted")),
        ("single", "weighted", ("weighted",)),
    ]
    assert [len(run.config.stages) for run in plan.runs] == [3, 1, 3]
    assert {(run.config.seed, run.config.replicas, run.config.controls) for run in plan.runs} == {(5, 3, ())}
    assert plan.runs[1].config.stages[0].copies is None
    assert controls.make_plan(write_config(tmp_path), seeds=4).method.config.replicas == 4
    assert controls.make_plan(write_config(tmp_path), ["replicas=6"]).method.config.replicas == 6


def test_a_control_with_the_budget_of_the_method_costs_as_many_flops_as_the_costliest_stage(tmp_path):
    """The method's stages cost 100 and 130 in all; the control's stage stands on others that cost 20."""
    file = write_config(
        tmp_path, ("against: [average, weighted]", "against: [average, weighted], budget: method")
    )

    def count(run_config: config.RunConfig) -> dict[str, StageFlops]:
        if run_config.stages[-1].name == "members":
            return {"members": StageFlops(50.0, 70.0)}
        return {
            "members": StageFlops(90.0, 90.0),
            "average": StageFlops(0, 100.0),
            "weighted": StageFlops(40, 130.0),
        }

    one = controls.make_plan(file, count_flops=count).controls[0].config.stages[-1].training
    assert (one.steps, one.seconds, one.flops) == (None, None, 110.0)
    with pytest.raises(errors.ConfigError, match="nothing of it is left"):
        controls.make_plan(
            file, count_flops=lambda run_config: count(run_config) | {"members": StageFlops(1, 200.0)}
        )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("stage: members", "stage: member", "names no stage: member"),
        ("against: [average, weighted]", "against: [mean]", "against names no stage: mean"),
        ("stages.members.copies=null]", "stages.members.training.steps=2]", "has copies"),
        ("stages.members.copies=null]", "evaluation.seed=1]", "cannot change evaluation"),
        ("stages.members.copies=null]", "stages.members.copys=1]", "copys"),
        ("name: one,", "name: method,", "cannot name its run"),
        ("name: one,", "name: single,", "twice"),
        ("[stages.members.copies=null]", "[]", "changes nothing"),
    ],
)
def test_controls_that_cannot_work_are_refused(tmp_path, old, new, words):
    with pytest.raises(errors.ConfigError) as refused:
        controls.make_plan(write_config(tmp_path, (old, new)))
    assert words in f"{refused.value.what} {refused.value.remedy}"
    assert refused.value.where and refused.value.remedy


def test_a_config_without_controls_is_refused_with_an_example():
    with pytest.raises(errors.ConfigError, match="no controls") as refused:
        controls.make_plan(config.find_file("sinusoid/maml"))
    assert "write controls:" in refused.value.remedy


def test_the_differences_are_method_minus_control_and_say_who_is_ahead(tmp_path, trained):
    plan = controls.make_plan(write_config(tmp_path))
    folder = control_runs.open_directory(tmp_path / "controls", plan)
    control_runs.train(folder, plan, None, workers.Report())
    whole = control_runs.compare(folder, plan, None, None)
    found = {(line["control"], line["of"]): line for line in whole["differences"]}
    assert list(found) == [
        ("one", "method/average"),
        ("one", "method/weighted"),
        ("single", "method/weighted"),
    ]
    means = [round(line["mean"], 1) for line in found.values()]
    assert means == [0.1, -0.1, 0.0]
    assert [line["ahead"] for line in found.values()] == ["control", "method", None]
    assert all(line["p_holm"] >= line["p"] for line in found.values())
    assert [(line["name"], line["stage"]) for line in whole["runs"]] == [
        ("method", "average"),
        ("method", "weighted"),
        ("one", "members"),
        ("single", "weighted"),
    ]
    assert read_json(tmp_path / "controls/comparison.json") == json.loads(json.dumps(whole))


def test_runs_that_are_done_are_not_trained_again_and_others_are_refused(tmp_path, trained):
    plan = controls.make_plan(write_config(tmp_path))
    folder = control_runs.open_directory(tmp_path / "controls", plan)
    finish(folder, "one", MEANS["one"])
    control_runs.train(control_runs.open_directory(tmp_path / "controls", plan), plan, None, workers.Report())
    assert trained == ["method", "single"]
    control_runs.train(folder, plan, None, workers.Report())
    assert trained == ["method", "single"]
    other = controls.make_plan(write_config(tmp_path), ["seed=6"])
    assert other.hash() != plan.hash()
    with pytest.raises(errors.RunDirectoryError, match="other controls"):
        control_runs.open_directory(tmp_path / "controls", other)


def test_a_control_that_diverges_is_left_out_and_a_method_that_does_is_an_error(
    tmp_path, trained, monkeypatch
):
    plan = controls.make_plan(write_config(tmp_path))
    for name, failing in (("one", ("one",)), ("all", ("method",))):
        monkeypatch.setattr(workers, "train", make_trainer([], failing))
        folder = control_runs.open_directory(tmp_path / name, plan)
        control_runs.train(folder, plan, None, workers.Report())
    whole = control_runs.compare(control_runs.open_directory(tmp_path / "one", plan), plan, None, None)
    assert whole["diverged"] == ["one"] and [line["control"] for line in whole["differences"]] == ["single"]
    with pytest.raises(errors.DivergedError, match="method"):
        control_runs.compare(folder, plan, None, None)


def test_a_finished_run_with_enough_seeds_is_the_method(tmp_path, trained):
    """The run's own config has the controls; another seed, or fewer, would need another method."""
    made = control_runs.open_directory(tmp_path / "made", controls.make_plan(write_config(tmp_path)))
    finish(made, "method", MEANS["method"])
    run = made.find_run("method")
    whole = config.load(write_config(tmp_path), ["replicas=3"])
    (run / "config.yaml").write_text(config.to_yaml(whole))
    plan = controls.make_plan(run)
    assert plan.trained == run and [planned.name for planned in plan.untrained] == ["one", "single"]
    folder = control_runs.open_directory(tmp_path / "controls", plan)
    control_runs.train(folder, plan, None, workers.Report())
    assert trained == ["one", "single"]
    compared = control_runs.compare(folder, plan, None, None)
    assert [round(line["mean"], 1) for line in compared["differences"]] == [0.1, -0.1, 0.0]
    assert controls.make_plan(run, ["seed=9"]).trained is None
    assert controls.make_plan(run, seeds=5).trained is None


def test_the_command_trains_compares_and_goes_on(tmp_path, trained, metarun_, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write_config(tmp_path)
    said = metarun_("compare", file, "--controls")
    assert said.code == 0, said
    text = "\n".join(said.out)
    assert "the control is ahead" in text and "cannot be told apart" in text and "3 seeds" in text
    folder = Path(said.out[-1])
    assert folder.parent == Path("controls") and (folder / "single/result.json").exists()
    assert trained == ["method", "one", "single"]
    again = metarun_("compare", file, "--controls", "--json")
    assert json.loads(again.out[-1])["seeds"] == SEEDS and len(trained) == 3
    assert_three_lines(metarun_("compare", file, file, "--controls"), 2, "one config or one run")
    assert_three_lines(metarun_("compare", file, "--controls", "--steps-curve"), 2, "means nothing beside")
    assert_three_lines(metarun_("compare", folder, "--seeds", 3), 2, "means nothing without")
    assert_three_lines(metarun_("compare", "sinusoid/mmal", "--controls"), 3, "did you mean sinusoid/maml?")


def test_a_fused_stage_shows_the_parameters_of_its_members():
    cost = Cost(7, 2.5, 1.0, 0, 68, flops=1e3, all_parameters=7044)._asdict()
    line = {
        "name": "method",
        "stage": "average",
        "mean": 0.5,
        "ci95": 0.1,
        "cost": cost,
        "says": "the method",
    }
    assert make_row(line)[-2:] == ["7,044", "the method"]


class EqualCosts(dict):
    """Every stage costs as much as any other: a budget of the method is counted elsewhere."""

    def __missing__(self, stage: str) -> StageFlops:
        return StageFlops(1e12, 2e12)


METHODS = (
    "fusion",
    "distillation",
    "extraction",
    "hypernetwork",
    "conditioned",
    "knowledge_graph",
    "task_embedding",
)


@pytest.mark.slow
def test_every_config_of_a_method_that_needs_controls_has_them_and_they_bind():
    files = {name: config.find_file(name) for name in shipped.list_names()}
    texts = {name: file.read_text() for name, file in files.items()}
    chosen = [name for name, text in texts.items() if any(f"name: {method}" in text for method in METHODS)]
    assert len(chosen) > 30
    for name in chosen:
        assert "\n# Controls: " in texts[name] and "\ncontrols:" in texts[name], name
        assert controls.make_plan(files[name], count_flops=lambda _: EqualCosts()).controls


KINDS = {
    "sinusoid/fusion": "one-member",
    "sinusoid/distillation": "shuffled-teacher",
    "sinusoid/extraction": "finetuned",
    "mixture/conditioned-graph-5modes": "shuffled-edges",
    "mixture/hybrid-2modes": "maml",
}


@pytest.mark.slow
def test_a_control_of_each_kind_builds():
    with shared_programs.share():
        for name, control in KINDS.items():
            plan = controls.make_plan(config.find_file(name), count_flops=lambda _: EqualCosts())
            run = next(run for run in plan.controls if run.name == control)
            experiment.assemble(run.config, jax.devices("cpu")[0])


def test_a_method_may_take_a_stage_of_another_run(tmp_path, monkeypatch):
    """The control and the method have the same one, whatever run is the latest when they are trained."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs/other/20261121-144857-dafe"
    run.mkdir(parents=True)
    teacher = "task: {name: sinusoid}\nmodel: {name: mlp}\nalgorithm: {name: maml}\ntraining: {steps: 3}\n"
    (run / "config.yaml").write_text(teacher)
    (run / "lock").touch()
    taken = "  - {name: members, taken_from: latest}\n"
    control = "{name: other, says: less, budget: own, changes: [stages.weighted.training.steps=2]}"
    file = write_config(
        tmp_path,
        (TEXT[TEXT.index("  - {name: members") : TEXT.index("  - name: average")], taken),
        (TEXT[TEXT.index("  - {name: one") :], f"  - {control}\n"),
    )
    plan = controls.make_plan(file)
    assert [planned.config.stages[0].taken_from for planned in plan.runs] == [str(run / "maml")] * 2


def test_vectors_of_tasks_are_compared_with_those_of_the_control_and_with_the_raw_support(monkeypatch):
    plan = controls.make_plan(shipped.find_file("mixture/embedding-prototype"))
    shares = {"method": 1.0, "untrained": 0.25}

    def find_neighbours(run: Path, stage: str) -> neighbours.Neighbours:
        seeds = (0, 1, 2)
        own, raw = np.full((3, 8), shares[run.name]), np.full((3, 8), 0.5)
        return neighbours.Neighbours({"mode": Measured(own, seeds)}, {"mode": Measured(raw, seeds)})

    monkeypatch.setattr(neighbours, "find_neighbours", find_neighbours)
    paths = {name: Path(name) for name in shares}
    lines = control_runs.compare_neighbours(plan, list(plan.controls), paths)
    found = [(line["of"], line["control"], line["method_share"], line["control_share"]) for line in lines]
    assert found == [("embedding", "untrained", 1.0, 0.25), ("embedding", "raw support", 1.0, 0.5)]
    cells = [make_neighbour_row(line)[:5] for line in lines]
    assert cells[1] == ["embedding", "raw support", "mode", "1.0000", "0.5000"]
