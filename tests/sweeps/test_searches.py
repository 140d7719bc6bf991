"""Random and TPE search with Optuna: what is proposed, what it is told, and what a kill leaves."""

import pytest

from helpers import sweeps
from helpers.sweeps import INNER, RATE
from metarun.errors import UsageError
from metarun.sweeps import execution, searches, workers

optuna = pytest.importorskip("optuna", reason="the extra `search` is not installed")
AXES = (f"{RATE}=log(1e-4,1e-1,3)", f"{INNER}=linear(0.01,0.1,2)", "model.hidden=[8],[4]")


def open_search(tmp_path, search, trials, **options):
    asked = sweeps.ask(tmp_path, *AXES, search=search, trials=trials, **options)
    return sweeps.open_sweep(tmp_path, asked), asked


def test_random_settings_lie_anywhere_between_the_ends_and_are_all_different(tmp_path):
    sweep, asked = open_search(tmp_path, "random", 12)
    proposed = searches.propose(sweep, asked, 0)
    assert proposed is not None
    rates = [setting[RATE] for setting in proposed.settings]
    assert len(set(rates)) == 12
    assert 1e-4 <= min(rates) < 1e-3 < 1e-2 < max(rates) <= 1e-1
    assert {tuple(setting["model.hidden"]) for setting in proposed.settings} == {(8,), (4,)}
    assert searches.propose(sweep, asked, 0) == proposed  # from its file
    assert searches.propose(sweep, asked, 1) is None


def test_choices_are_tried_once_each_even_if_more_are_asked_for(tmp_path):
    asked = sweeps.ask(tmp_path, f"{RATE}=0.1,0.2,0.3", search="random", trials=9)
    proposed = searches.propose(sweeps.open_sweep(tmp_path, asked), asked, 0)
    assert proposed is not None
    assert sorted(setting[RATE] for setting in proposed.settings) == [0.1, 0.2, 0.3]


def test_a_round_that_was_asked_and_not_written_is_asked_again_alike(tmp_path):
    """As after a kill between Optuna's journal and the file of the round, with half a line in the journal."""
    sweep, asked = open_search(tmp_path, "tpe", 8)
    proposed = searches.propose(sweep, asked, 0)
    assert proposed is not None
    (sweep.path / "rounds" / "000.json").unlink()
    with (sweep.path / "study.journal").open("a") as journal:
        journal.write('{"op_code": 4, "worker')
    again = searches.propose(sweep, asked, 0)
    assert again is not None
    assert again.settings == proposed.settings
    assert again.numbers != proposed.numbers


def test_tpe_learns_between_rounds_and_is_told_what_was_stopped(tmp_path, monkeypatch):
    trained: list[str] = []
    monkeypatch.setattr(workers, "train", sweeps.make_trainer(trained))
    monkeypatch.setattr(execution.winner, "measure", lambda *_: {})
    monkeypatch.setattr(execution, "draw", lambda *_: None)
    sweep, asked = open_search(tmp_path, "tpe", 4, halve=2)
    plan = execution.Plan(sweeps.QUESTIONS, 1, True, workers.Report())
    ranked = execution.run(sweep, asked, plan)
    assert ranked is not None
    assert len(ranked["ranking"]) == 4
    assert [path.name for path in sorted((sweep.path / "rounds").glob("???.json"))] == [
        f"00{place}.json" for place in range(2)
    ]
    with searches.open_study(sweep, asked, 0) as study:
        states = [trial.state.name for trial in study.trials]
        values = {trial.number: trial.value for trial in study.trials if trial.state.name == "COMPLETE"}
    assert states.count("COMPLETE") == states.count("PRUNED") == 2
    done = {line["number"] - 1: line["mean"] for line in ranked["ranking"] if line["state"] == "done"}
    assert values == pytest.approx(done)
    assert ranked["importance"]["method"] == "fANOVA"
    assert sum(ranked["importance"]["shares"].values()) == pytest.approx(1.0)


def test_without_optuna_a_search_says_what_to_install(tmp_path, monkeypatch):
    sweep, asked = open_search(tmp_path, "tpe", 4)
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UsageError, match=r"metarun\[search\]"):
        searches.propose(sweep, asked, 0)
