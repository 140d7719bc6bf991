"""What learners of finished runs have cost, and whose budgets differ."""

import json

import numpy as np
import pytest

from helpers.finished_runs import COUNT, make_run
from metarun.finished import comparison, costs
from metarun.finished.comparison import Choice
from metarun.finished.costs import Cost, add_recorded, describe_budgets, judge_budgets, measure

SAVED = Cost(7, 2.5, 1.0, 12, 68)
RECORDED = {
    "replicas": 1,
    "members": 2,
    "own": {"steps": 9, "ended_by": "seconds", "seconds": 3.0, "flops": 600.0, "parameters": 40},
    "total": {"seconds": 5.0, "flops": 1000.0, "parameters": 100},
    "adaptation": {"flops": 30.0},
    "prediction": {"flops": 10.0},
}


def test_a_recorded_cost_replaces_what_the_checkpoint_tells():
    cost = add_recorded(SAVED, RECORDED)
    assert (cost.steps, cost.seconds, cost.earlier_seconds, cost.ended_by) == (9, 3.0, 2.0, "seconds")
    assert (cost.flops, cost.all_parameters, cost.adaptation_flops, cost.prediction_flops) == (
        1000.0,
        100,
        30.0,
        10.0,
    )
    assert (cost.parameters, cost.state_bytes) == (12, 68)  # of one learner, as ever


@pytest.mark.parametrize("part", ["total", "adaptation", "prediction"])
def test_a_lower_bound_of_any_part_is_told(part):
    assert not add_recorded(SAVED, RECORDED).flops_at_least
    assert add_recorded(SAVED, RECORDED | {part: RECORDED[part] | {"at_least": True}}).flops_at_least


def test_a_member_has_not_cost_what_the_other_members_have():
    cost = add_recorded(SAVED, RECORDED, members=2)
    assert (cost.flops, cost.all_parameters) == (1000.0 - 300.0, 100 - 20)


def test_an_older_result_has_no_flops():
    assert add_recorded(SAVED, None) == SAVED
    cost = SAVED._asdict()
    known = {against: measure(cost, against) for against in costs.MEASURES}
    assert known == {"seconds": 3.5, "flops": None, "steps": 7, "parameters": 12, "adaptation": None}


def judge(**values):
    """Judge learners that have these values of their costs."""
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return judge_budgets([SAVED._replace(**row)._asdict() for row in rows])


def test_budgets_within_a_tenth_of_the_best_are_equal():
    budgets = judge(flops=[100.0, 109.0, 91.0, 111.0, 310.0])
    assert budgets.unequal == [False, False, False, True, True]
    line = describe_budgets(budgets, list("abcde"))
    assert line == "unequal budgets: d 1.11 times, e 3.1 times the FLOPs of training of a"
    assert describe_budgets(judge(flops=[100.0, 101.0]), list("ab")) is None


@pytest.mark.parametrize(
    ("values", "against"),
    [
        ({"flops": [1.0, 2.0]}, "flops"),
        ({"flops": [1.0, None]}, "seconds"),
        ({"flops": [1.0, None], "replicas": [1, 3]}, "steps"),  # seconds are those of all replicas together
        ({"seconds": [None, None], "steps": [None, 3]}, None),
    ],
)
def test_budgets_are_compared_in_the_fairest_measure_that_all_have(values, against):
    assert judge(**values).against == against


@pytest.fixture
def runs(tmp_path):
    """Return runs of which the first two record their costs, the second three times the FLOPs; c is older."""
    generator = np.random.default_rng(0)
    paths = [
        make_run(tmp_path / name, generator.normal(place, 0.1, COUNT)) for place, name in enumerate("abc")
    ]
    for place, path in enumerate(paths[:2]):
        recorded = RECORDED | {"members": 1, "total": RECORDED["total"] | {"flops": 1e9 * 3**place}}
        if place:
            recorded["own"] = RECORDED["own"] | {"ended_by": "steps"}
        result = json.loads((path / "result.json").read_text()) | {"costs": {"maml": recorded}}
        (path / "result.json").write_text(json.dumps(result))
    return paths


def test_the_table_shows_costs_and_marks_other_budgets(metarun_, runs):
    header, best, other, *lines = metarun_("compare", *runs[:2], "--metric", "loss").out
    names = [
        "steps",
        "seconds",
        "before",
        "parameters",
        "in all",
        "state",
        "FLOPs",
        "to adapt",
        "to predict",
        "budget",
    ]
    assert header.split("close to")[1].split("  ") and all(name in header for name in names)
    assert best.split()[-4:] == ["1e+09", "30", "10", "equal"]
    assert other.split()[-5:] == ["3e+09", "30", "10", "3", "×"]
    assert "unequal budgets: b 3 times the FLOPs of training of a" in lines
    assert "ended by seconds, so that another run has another number of steps: a" in lines


def test_the_costs_of_older_runs_are_not_recorded(metarun_, runs):
    said = metarun_("compare", *runs, "--metric", "loss").out
    assert said[3].count("not recorded") == 4  # FLOPs, to adapt, to predict, and parameters in all
    alone = metarun_("compare", runs[2], runs[2].parent / "c2", "--metric", "loss")
    assert alone.code  # there is none
    make_run(runs[2].parent / "c2", np.zeros(COUNT))
    said = metarun_("compare", runs[2], runs[2].parent / "c2", "--metric", "loss").out
    assert not any("to adapt" in line for line in said[:1])
    assert "FLOPs of training, adaptation and prediction: not recorded by the version that trained" in said


def test_the_json_has_costs_and_budgets(metarun_, runs):
    said = json.loads("".join(metarun_("compare", *runs[:2], "--metric", "loss", "--json").out))
    assert said == comparison.compare(runs[:2], Choice(metric="loss"))
    assert said["budgets"] == {"against": "flops", "shares": [1.0, 3.0], "unequal": [False, True]}
    assert said["ranking"][1]["cost"]["flops"] == 3e9


def test_against_without_a_picture_is_a_usage_error(metarun_, runs):
    said = metarun_("compare", *runs[:2], "--against", "flops")
    assert said.code == 2
    assert "add --plot flops.png" in said.err[-1]


def test_against_draws_the_metric_over_the_cost(metarun_, runs, tmp_path):
    said = metarun_(
        "compare", *runs, "--metric", "loss", "--against", "flops", "--plot", tmp_path / "flops.png"
    )
    assert said.code == 0
    assert (tmp_path / "flops.png").read_bytes().startswith(b"\x89PNG")
