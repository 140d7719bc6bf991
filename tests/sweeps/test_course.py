"""The course of a sweep follows from its files alone: rounds, rungs, and what goes on after a kill."""

import math

import pytest

from helpers import sweeps
from helpers.sweeps import RATE
from metarun import config
from metarun.errors import DataError, DivergedError, RunDirectoryError
from metarun.sweeps import course, execution, workers
from metarun.sweeps.sweep_directory import RANKING, SweepDirectory

RATES = (1e-4, 1e-3, 1e-2, 1e-1)
GRID = f"{RATE}={','.join(map(str, RATES))}"


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The programs that were trained, in their order; the winner is not measured on the test split."""
    names: list[str] = []
    monkeypatch.setattr(workers, "train", sweeps.make_trainer(names))
    monkeypatch.setattr(execution.winner, "measure", lambda *_: {})
    monkeypatch.setattr(execution, "draw", lambda *_: None)
    return names


def run(tmp_path, *arguments, **options):
    asked = sweeps.ask(tmp_path, *arguments, **options)
    plan = execution.Plan(sweeps.QUESTIONS, 1, True, workers.Report())
    sweep = sweeps.open_sweep(tmp_path, asked)
    return sweep, execution.run(sweep, asked, plan)


def read_order(ranked) -> list[float]:
    return [line["setting"][RATE] for line in ranked["ranking"]]


def test_a_grid_is_one_program_and_its_ranking_has_the_paired_differences(tmp_path, trained):
    sweep, ranked = run(tmp_path, GRID, "seed=0..1")
    assert trained == ["000-0-000"]
    assert read_order(ranked) == pytest.approx([1e-2, 1e-3, 1e-1, 1e-4])
    best, second = ranked["ranking"][:2]
    assert best["behind"] is None
    assert second["behind"]["mean"] == pytest.approx(1.0)
    # The noise of the episodes is the same for both.
    assert second["behind"]["ci95"] == pytest.approx(0.0, abs=1e-6)
    assert second["ci95"] > 0.01
    assert best["seeds"]["values"][1] - best["seeds"]["values"][0] == pytest.approx(0.01)
    assert [place["replica"] for place in best["places"]] == [4, 5]
    winner = config.load(sweep.path / "winner.yaml")
    assert (winner.replicas, winner.evaluation.split, sweeps.find_rate(winner)) == (2, "test", 1e-2)


def test_halving_trains_the_best_half_for_twice_as_many_steps(tmp_path, trained):
    sweep, ranked = run(tmp_path, GRID, halve=2)
    assert trained == ["000-0-000", "000-1-000", "000-2-000"]
    replicas = [config.load(sweep.find_program(name) / "config.yaml") for name in trained]
    assert [(one.replicas, one.stages[0].training.steps) for one in replicas] == [(4, 6), (2, 12), (1, 24)]
    assert [line["state"] for line in ranked["ranking"]] == ["done", "stopped", "stopped", "stopped"]
    assert [line["steps"] for line in ranked["ranking"]] == [24, 12, 6, 6]
    assert [len(line["rungs"]) for line in ranked["ranking"]] == [3, 2, 1, 1]
    assert ranked["importance"]["steps"] == 6


def test_nothing_that_is_done_is_trained_again(tmp_path, trained):
    asked = sweeps.ask(tmp_path, GRID, halve=2)
    sweep = sweeps.open_sweep(tmp_path, asked)
    sweep_course = course.follow(sweep, asked, sweeps.QUESTIONS)
    assert sweep_course.rung is not None
    sweeps.finish_program(sweep, sweep_course.rung.programs[0].name)
    run(tmp_path, GRID, halve=2)
    assert trained == ["000-1-000", "000-2-000"]
    before = (sweep.path / RANKING).read_bytes()
    run(tmp_path, GRID, halve=2)
    assert len(trained) == 2
    assert (sweep.path / RANKING).read_bytes() == before


def test_a_setting_that_diverges_is_last_and_wins_nothing(tmp_path, trained, monkeypatch):
    def diverge(run_config):
        return (
            math.nan
            if sweeps.find_rate(run_config) == 1e-2 and run_config.seed == 1
            else sweeps.measure_distance(run_config)
        )

    monkeypatch.setattr(workers, "train", sweeps.make_trainer(trained, diverge))
    _, ranked = run(tmp_path, GRID, "seed=0..1", halve=4)
    assert read_order(ranked)[0] == 1e-3
    last = ranked["ranking"][-1]
    assert (last["setting"][RATE], last["state"], last["diverged_seeds"], last["mean"]) == (
        1e-2,
        "diverged",
        [1],
        None,
    )


def test_a_sweep_without_a_finite_setting_ends_with_an_error(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(workers, "train", sweeps.make_trainer(trained, lambda _: math.nan))
    with pytest.raises(DivergedError, match="every setting"):
        run(tmp_path, GRID)


def test_seeds_alone_are_ranked(tmp_path, trained):
    _, ranked = run(tmp_path, "seed=0..3")
    assert len(ranked["ranking"]) == 1
    assert len(ranked["ranking"][0]["places"]) == 4


def test_programs_on_other_episodes_are_not_ranked(tmp_path, trained):
    asked = sweeps.ask(tmp_path, GRID, "model.hidden=[8],[4]")
    sweep = sweeps.open_sweep(tmp_path, asked)
    followed = course.follow(sweep, asked, sweeps.QUESTIONS)
    assert followed.rung is not None
    for program in followed.rung.programs:
        sweeps.finish_program(sweep, program.name)
    file = sweep.find_run(followed.rung.programs[1].name) / "result.json"
    file.write_text(file.read_text().replace('"abc"', '"other"'))
    with pytest.raises(DataError, match="measured differently"):
        course.follow(sweep, asked, sweeps.QUESTIONS)


def test_the_best_checkpoint_keeps_trials_apart(tmp_path):
    asked = sweeps.ask(tmp_path, GRID, "evaluation.checkpoint=best")
    prepared = course.prepare(asked, dict(enumerate(asked.list_grid())), sweeps.QUESTIONS, "000-0", 1)
    assert [len(program.trials) for program in prepared.rung.programs] == [1, 1, 1, 1]
    assert prepared.rung.reasons == [course.BEST]


def test_settings_of_one_kind_are_asked_about_once(tmp_path):
    asked = sweeps.ask(tmp_path, GRID, "model.hidden=[8],[4]")
    asked_about = []

    def answer(run_config, keys):
        asked_about.append((run_config.stages[0].model.config.hidden, keys))
        return {RATE: None}

    questions = course.remember_answers(asked, answer, lambda _: 1)
    for setting in asked.list_grid():
        questions.find_obstacles(setting)
    assert asked_about == [((8,), [RATE]), ((4,), [RATE])]


def test_no_program_has_more_trials_than_fit_which_is_asked_until_some_do_not(tmp_path):
    asked = sweeps.ask(tmp_path, GRID, "seed=0..1", "model.hidden=[8],[4]")
    asked_about = []

    def count(run_config):
        asked_about.append(run_config.replicas)
        return 3 if run_config.stages[0].model.config.hidden == (8,) else run_config.replicas

    questions = course.remember_answers(asked, lambda *_: {RATE: None}, count)
    prepared = course.prepare(asked, dict(enumerate(asked.list_grid())), questions, "000-0", 1)
    assert [len(program.trials) for program in prepared.rung.programs] == [2, 3, 3, 8]
    assert prepared.rung.reasons[-1] == "3 of 8 trials fit into the memory at once"
    settings = dict(enumerate(asked.list_grid()[:2]))
    course.prepare(asked, settings, questions, "000-1", 1)
    assert asked_about == [8, 8]  # two trials of either kind are known to fit


def test_a_directory_holds_one_sweep(tmp_path):
    sweeps.open_sweep(tmp_path, sweeps.ask(tmp_path, GRID))
    sweeps.open_sweep(tmp_path, sweeps.ask(tmp_path, GRID))
    with pytest.raises(RunDirectoryError, match="another sweep"):
        sweeps.open_sweep(tmp_path, sweeps.ask(tmp_path, GRID, halve=2))
    with pytest.raises(RunDirectoryError, match="is no sweep"):
        SweepDirectory.open(tmp_path, sweeps.ask(tmp_path, GRID))


def test_a_damaged_file_is_named(tmp_path):
    sweep = sweeps.open_sweep(tmp_path, sweeps.ask(tmp_path, GRID))
    (sweep.path / "sweep.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        sweeps.open_sweep(tmp_path, sweeps.ask(tmp_path, GRID))


def test_the_share_of_a_key_on_a_grid_is_that_of_its_means(tmp_path, trained):
    """The loss is f(rate) + 0.01·seed and does not depend on the inner rate: all variance is that of the rate."""
    _, ranked = run(tmp_path, GRID, f"{sweeps.INNER}=0.01,0.1")
    assert ranked["importance"]["method"] == "variance of a grid"
    assert ranked["importance"]["shares"] == pytest.approx({RATE: 1.0, sweeps.INNER: 0.0}, abs=1e-6)
