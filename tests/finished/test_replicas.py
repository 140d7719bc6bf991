"""What is done with a finished run of replicas and copies: its result, its learners, its tables."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.runs import evaluate, last_checkpoints, measured, read_arrays, read_episodes, read_json
from metarun import cli, errors
from metarun.finished import comparison, opened_run, prediction
from metarun.finished.comparison import Choice

pytestmark = pytest.mark.slow  # whole runs of many models


def test_the_result_shows_each_member_their_mean_and_the_best_by_validation(both, tmp_path):
    stages = read_json(both / "result.json")["stages"]
    base, values = stages["base"], read_episodes(both, "base")["inductive/adapted/loss"]
    assert values.shape == (2, 3, 6)
    assert set(stages["other"]) == {"step", "inductive"}
    assert set(base) == {"step", "inductive", "members", "best"}
    assert base["inductive"]["adapted"]["loss"]["mean"] == pytest.approx(values.mean())
    for number, member in enumerate(base["members"]):
        loss = member["inductive"]["adapted"]["loss"]
        np.testing.assert_allclose(loss["seeds"]["values"], values[:, number].mean(axis=1), rtol=1e-6)
        assert set(member["inductive"]["inner_steps"]) == {"2"}
    validation = evaluate(both, split="validation")["stages"]["base"]
    by_validation = np.array(
        [member["inductive"]["adapted"]["loss"]["seeds"]["values"] for member in validation["members"]]
    ).T
    best = by_validation.argmin(axis=1)
    assert base["best"]["member"] == validation["best"]["member"] == best.tolist()
    chosen = [values[replica, member].mean() for replica, member in enumerate(best)]
    np.testing.assert_allclose(base["best"]["inductive"]["adapted"]["loss"]["seeds"]["values"], chosen)


def test_evaluation_afterwards_gives_the_result_of_the_run(both):
    assert json.loads(json.dumps(evaluate(both))) == measured(both)


def test_prediction_takes_the_replica_and_the_member_that_it_is_asked_for(both):
    arrays = read_arrays(last_checkpoints(both)["base"])
    for replica, member in ((0, 0), (1, 2)):
        learner = prediction.load(both, stage="base", replica=replica, member=member)
        kernel = learner.weights.trained["head"]["kernel"]
        kernels = arrays["weights.trained['head']['kernel']"]
        np.testing.assert_array_equal(kernel, kernels[replica, member])
    inputs = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    answers = [
        prediction.load(both, replica=replica).adapt((inputs, inputs)).predict(inputs) for replica in (0, 1)
    ]
    assert answers[0].shape == (5, 1)
    assert not np.allclose(*answers)


@pytest.mark.parametrize(
    ("choice", "what"),
    [
        ({"replica": 2}, "no replica 2"),
        ({"member": 1}, "no member 1"),
        ({"inner_steps": -1}, "cannot be taken"),
        ({"replica": -1}, "no replica -1"),
    ],
)
def test_a_learner_that_is_not_there_is_refused_before_its_run_is_opened(both, choice, what, monkeypatch):
    monkeypatch.setattr(opened_run, "open_run", lambda *arguments, **options: pytest.fail("it is opened"))
    with pytest.raises(errors.UsageError, match=what):
        prediction.load(both, **choice)


def test_compare_takes_members_as_learners_and_shows_the_seeds(both):
    ranking = comparison.compare([both], Choice())["ranking"]
    labels = {entry["label"].partition("/")[2] for entry in ranking}
    assert labels == {"base[0]", "base[1]", "base[2]", "other"}
    values = read_episodes(both, "base")["inductive/adapted/loss"]
    second = next(entry for entry in ranking if entry["stage"] == "base[1]")
    assert second["mean"] == pytest.approx(values[:, 1].mean())
    np.testing.assert_allclose(second["seeds"]["values"], values[:, 1].mean(axis=1))
    assert second["cost"]["parameters"] == 8 + 8 + 8 + 1


def test_the_tables_show_the_interval_over_seeds_and_every_replica(both):
    shown = CliRunner().invoke(cli.application, ["eval", str(both)])
    assert shown.exit_code == 0, shown.output
    result = read_json(both / "result.json")
    loss = result["stages"]["other"]["inductive"]["adapted"]["loss"]
    table = shown.stdout.splitlines()
    assert any(
        f"{loss['mean']:.4f} ± {loss['ci95']:.4f} (± {loss['seeds']['ci95']:.4f})" in line for line in table
    )
    cells = [f"{value:.4f}" for value in loss["seeds"]["values"]]
    assert any(line.split()[0] == "other" and line.split()[-2:] == cells for line in table if line)
    assert any("seed 2" in line and "seed 3" in line for line in table)
    assert {"base[0]", "base[2]", "base[best]"} <= {line.split()[0] for line in table if line}
    shown = CliRunner().invoke(cli.application, ["compare", str(both)])
    assert "base[1]" in shown.stdout
    assert "seeds" in shown.stdout.splitlines()[-2]
