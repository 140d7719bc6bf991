"""What result.json says of the cost of each stage."""

import pytest

from helpers.assembled import assemble
from helpers.runs import read_json
from metarun.stages import Trained
from metarun.training import ledger, stage_traces, start_costs
from metarun.training.facts import Spent

SHOTS, QUERIES, TASKS = 5, 5, 4
# A perceptron 1-8-1: its parameters, and the products of a forward pass, of a gradient, and of their derivatives.
PARAMETERS, FORWARD, GRADIENT = 8 + 8 + 8 + 1, 8 + 8, (8 + 8) + (8 + 8) + 8
THROUGH = 6 * 8 + 2 * 8
STEP = 2 * TASKS * (SHOTS * (GRADIENT + THROUGH) + QUERIES * GRADIENT)

CHAIN = """
task: {name: sinusoid, shots: 5, queries: 5}
stages:
  - {name: alone, model: MODEL, algorithm: {name: maml}, training: {steps: 3, tasks_per_step: 4}}
  - {name: teacher, model: MODEL, algorithm: {name: maml}, training: {steps: 5, tasks_per_step: 4}}
  - name: student
    model: MODEL
    algorithm: {name: distillation, teachers: [teacher], student: alone}
    training: {steps: 7, tasks_per_step: 4}
  - name: second
    model: MODEL
    algorithm: {name: distillation, teachers: [student], student: alone}
    training: {steps: 2, tasks_per_step: 4}
evaluation: {episodes: 6}
""".replace("MODEL", "{name: mlp, hidden: [8]}")


def test_the_costs_of_a_stage_are_those_counted_by_hand(several):
    costs = read_json(several / "result.json")["costs"]
    assert list(costs) == ["first", "second"]
    cost = costs["second"]
    seconds = cost["own"].pop("seconds")
    assert seconds == cost["total"].pop("seconds") > 0
    seen = 24 * TASKS
    common = {"steps": 24, "flops": 24 * STEP, "parameters": PARAMETERS, "tasks": seen, "examples": 10 * seen}
    assert cost == {
        "replicas": 1,
        "members": 1,
        "own": common | {"ended_by": "steps", "step_flops": STEP, "frozen": 0},
        "total": common,
        "stands_on": [],
        "adaptation": {"flops": 2 * SHOTS * GRADIENT, "bytes": cost["adaptation"]["bytes"]},
        "prediction": {"flops": 2 * FORWARD},
    }
    assert cost["adaptation"]["bytes"] >= 4 * PARAMETERS


def test_members_are_added_up_and_replicas_are_not(both, several):
    costs, single = (
        read_json(both / "result.json")["costs"],
        read_json(several / "result.json")["costs"]["first"],
    )
    base = costs["base"]
    assert (base["replicas"], base["members"]) == (2, 3)
    assert base["own"]["step_flops"] == 3 * single["own"]["step_flops"]
    assert base["own"]["parameters"] == 3 * PARAMETERS
    assert base["own"]["tasks"] == 3 * 8 * TASKS
    assert base["adaptation"] == single["adaptation"]
    assert costs["other"]["stands_on"] == []


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The costs of stages that stand on one another, as if each had taken 2 seconds; nothing is trained."""
    built = assemble(tmp_path_factory.mktemp("chain"), CHAIN)
    shapes = stage_traces.trace(built.config.evaluation, built.tasks, built.stages)
    spent = {stage.name: Spent(stage.training.steps, 2.0, 100.0, False, "steps") for stage in built.stages}
    trained = {name: Trained(1, weights) for name, weights in shapes.items()}
    return built, trained, spent


def test_a_stage_carries_the_cost_of_the_stages_whose_weights_its_start_reads(chain):
    built, trained, spent = chain
    costs = ledger.list_costs(built.stages, trained, spent, built.tasks, "inductive")
    foundations = {name: cost["stands_on"] for name, cost in costs.items()}
    assert foundations == {
        "alone": [],
        "teacher": [],
        "student": ["teacher"],
        "second": ["teacher", "student"],
    }
    total = costs["second"]["total"]
    assert (total["steps"], total["seconds"], total["flops"]) == (5 + 7 + 2, 6.0, 100.0 * (5 + 7 + 2))
    assert total["parameters"] == 3 * PARAMETERS
    assert costs["second"]["own"]["frozen"] >= PARAMETERS


def test_what_an_older_version_did_not_count_is_null_and_so_is_every_total_with_it(chain):
    built, trained, spent = chain
    before = spent | {"teacher": Spent(5, 2.0, None, False, "steps")}
    costs = ledger.list_costs(built.stages[:3], trained, before, built.tasks, "inductive")
    assert costs["teacher"]["own"]["flops"] is None
    assert costs["student"]["own"]["flops"] == 700.0
    assert costs["student"]["total"]["flops"] is None
    assert costs["student"]["total"]["steps"] == 12


def test_a_cost_that_cannot_be_counted_is_a_warning_and_no_lost_result(
    chain, monkeypatch, warnings_of_metarun
):
    built, trained, spent = chain
    monkeypatch.setattr(ledger, "count_use", lambda *_: 1 / 0)
    assert ledger.list_costs(built.stages[:1], trained, spent, built.tasks, "inductive") == {}
    assert warnings_of_metarun == ["the cost of alone is not counted: ZeroDivisionError: division by zero"]


def test_a_stage_that_starts_from_another_run_carries_what_that_has_cost(chain, single):
    built, trained, spent = chain
    there = {"run": str(single), "stage": "maml"}
    parts = start_costs.list_parts(single, "maml")
    sources = {
        "stages": {
            "teacher": {"key": "init_from", **there, "parts": parts},
            "second": {"key": "init_from", "run": "/gone", "stage": "maml", "cost": None, "parts": None},
        }
    }
    inherited = start_costs.read_inherited(sources)
    costs = ledger.list_costs(built.stages, trained, spent, built.tasks, "inductive", inherited)
    assert costs["alone"]["total"]["steps"] == 3
    assert costs["student"]["total"]["steps"] == 7 + 5 + 24
    assert costs["student"]["total"]["flops"] == 100.0 * (7 + 5) + 24 * STEP
    # The parameters of the other run are the teacher's own.
    assert costs["student"]["total"]["parameters"] == 2 * PARAMETERS
    assert (costs["second"]["total"]["steps"], costs["second"]["total"]["parameters"]) == (
        None,
        3 * PARAMETERS,
    )


def make_cost(steps: int, parameters: int) -> dict:
    return dict.fromkeys(start_costs.ADDED, steps) | {"parameters": parameters}


def test_each_stage_of_another_run_counts_once_whether_it_is_taken_or_a_start(chain):
    """The student's start stood on the teacher's own source, and the teacher is also taken from there."""
    built, trained, spent = chain
    place = {"run": "/a", "stage": "base"}
    start = {"/a/base": make_cost(5, 25), "/a/tune": make_cost(40, 25), "/b/pool": make_cost(300, 9)}
    records = {
        "teacher": {"key": "taken_from", **place, "parts": {"/b/pool": make_cost(300, 9)}},
        "student": {"key": "init_from", "run": "/a", "stage": "tune", "parts": start},
    }
    inherited = start_costs.read_inherited({"stages": records})
    costs = ledger.list_costs(built.stages[:3], trained, spent, built.tasks, "inductive", inherited)
    assert costs["teacher"]["total"]["steps"] == 5 + 300
    assert costs["student"]["total"]["steps"] == 7 + 5 + 40 + 300
    assert costs["student"]["total"]["parameters"] == 2 * PARAMETERS
    assert costs["alone"]["total"]["steps"] == 3


def test_of_two_numbers_of_steps_of_one_stage_the_larger_one_counts():
    records = {
        "one": {"key": "taken_from", "run": "/a", "stage": "base"},
        "two": {"key": "init_from", "run": "/a", "stage": "base", "parts": {"/a/base": make_cost(60, 25)}},
    }
    inherited = start_costs.read_inherited({"stages": records})
    sections = start_costs.collect({"two": make_cost(7, 25), "one": make_cost(24, 25)}, inherited)
    assert [section["steps"] for section in sections] == [7, 60]
    assert [section["parameters"] for section in sections] == [25, 25]


def test_records_of_an_older_version_have_one_part():
    place = {"run": "/a", "stage": "base"}
    start = {"key": "init_from", **place, "cost": {"steps": 24}}
    taken = {"key": "taken_from", **place, "cost": {"steps": 31}, "start_cost": {"steps": 24}}
    plain = {"key": "taken_from", **place, "cost": {"steps": 7}}
    records = {"start": start, "taken": taken, "plain": plain}
    assert start_costs.read_inherited({"stages": records}) == {
        "start": (None, {"/a/base": {"steps": 24}}),
        "taken": ("/a/base", {"/a/base/0": {"steps": 24}}),
        "plain": ("/a/base", {}),
    }


def test_a_run_without_recorded_costs_has_no_total(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    for run in (tmp_path, tmp_path / "none"):
        assert start_costs.read_total(run, "maml") is None
        assert start_costs.list_parts(run, "maml") is None
