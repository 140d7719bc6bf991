"""`metarun compare` of runs with several seeds: pairs of seed and episode, and what it says where they are missing."""

import numpy as np
import pytest

from helpers.finished_runs import COUNT, make_run, make_seeded_run
from metarun.evaluation.statistics import estimate
from metarun.finished import comparison
from metarun.finished.comparison import Choice

LOSS = Choice(metric="loss")


def draw_values(seed: int, noise: float = 0.1) -> np.ndarray:
    """Return values [seed, episode] of three seeds that differ by 0.7, −0.6 and −0.1."""
    generator = np.random.default_rng(seed)
    own = np.array([[0.7], [-0.6], [-0.1]])
    return 3 + own + noise * generator.standard_normal((3, COUNT))


def test_what_the_seeds_disagree_on_is_not_called_a_difference(tmp_path):
    """Over episodes alone, as before, the difference was certain."""
    values = draw_values(0)
    gain = np.array([[0.7], [2.0], [0.7]])  # of the seeds, far above the noise of the episodes
    runs = [make_seeded_run(tmp_path / "old", values, (0, 1, 2)), tmp_path / "new"]
    make_seeded_run(runs[1], values - gain + 0.01 * draw_values(1), (0, 1, 2))
    compared = comparison.compare(runs, LOSS)
    (line,) = compared["differences"]
    assert line["seeds"] == [0, 1, 2]
    assert not line["differ"] and line["ci95"] > abs(line["mean"])
    assert compared["ranking"][1]["behind"]["ci95"] == pytest.approx(line["ci95"])
    assert compared["notes"] == []


def test_a_learner_with_seeds_has_the_interval_over_both_and_each_alone(tmp_path):
    values = draw_values(0)
    runs = [
        make_seeded_run(tmp_path / name, values + shift, (0, 1, 2)) for name, shift in (("a", 0), ("b", 1))
    ]
    first = comparison.compare(runs, LOSS)["ranking"][0]
    assert first["ci95"] == pytest.approx(estimate(values).interval.ci95)
    assert first["ci95"] >= first["seeds"]["ci95"] > first["episodes"]["ci95"] > 0
    assert first["seeds"]["numbers"] == [0, 1, 2]
    assert first["seeds"]["values"] == pytest.approx(values.mean(axis=1).tolist())


def test_runs_with_other_numbers_of_seeds_are_paired_by_the_ones_they_share_and_the_table_says_so(
    metarun_, tmp_path
):
    values = draw_values(0)
    runs = [make_seeded_run(tmp_path / "three", values, (0, 1, 2))]
    runs.append(make_seeded_run(tmp_path / "two", values[1:] + 0.5, (1, 2)))
    compared = comparison.compare(runs, LOSS)
    (line,) = compared["differences"]
    assert line["seeds"] == [1, 2]
    assert abs(line["mean"]) == pytest.approx(0.5)  # not that of the two means
    said = metarun_("compare", *runs, "--metric", "loss")
    assert sum("not all have the same seeds" in text for text in said.out) == 1


def test_one_seed_is_said_once_under_the_table(metarun_, tmp_path):
    values = draw_values(0)
    runs = [make_run(tmp_path / name, values[0] + shift) for name, shift in (("a", 0.0), ("b", 0.5))]
    said = metarun_("compare", *runs)
    assert said.out.count("one seed: says nothing about training noise") == 1
    seeded = make_seeded_run(tmp_path / "seeded", values, (0, 1, 2))
    assert comparison.compare([*runs, seeded], LOSS)["notes"] == [
        "one seed: says nothing about training noise (a, b)"
    ]


def test_trials_are_one_learner_for_each_setting_with_the_seeds_of_its_own(tmp_path):
    values = draw_values(0)
    trials = [{"seed": 0, "algorithm.inner_lr": rate} for rate in (0.1, 0.1, 0.5)]
    changes = {"trials": trials, "diverged": []}
    run = make_seeded_run(tmp_path / "run", values, (0, 1, 0), **changes)
    compared = comparison.compare([run], LOSS)
    ranked = {entry["label"]: entry for entry in compared["ranking"]}
    assert set(ranked) == {"run inner_lr=0.1", "run inner_lr=0.5"}
    assert ranked["run inner_lr=0.1"]["seeds"]["numbers"] == [0, 1]
    assert ranked["run inner_lr=0.5"]["mean"] == pytest.approx(values[2].mean())
    assert compared["differences"][0]["seeds"] == []  # one seed in common is no pair of trainings


def test_a_trial_that_has_diverged_is_not_ranked_by_the_values_of_the_step_before(tmp_path):
    trials = [{"seed": 0, "algorithm.inner_lr": rate} for rate in (0.1, 0.2, 0.5)]
    diverged = [{"trial": 1, "stage": "maml", "step": 3}]
    run = make_seeded_run(tmp_path / "run", draw_values(0), (0, 0, 0), trials=trials, diverged=diverged)
    compared = comparison.compare([run], LOSS)
    assert compared["ranking"][-1]["label"] == "run inner_lr=0.2"
    assert np.isnan(compared["ranking"][-1]["mean"])


def test_an_older_file_with_the_mean_over_seeds_alone_says_what_cannot_be_had(tmp_path):
    values = draw_values(0)
    old = make_seeded_run(tmp_path / "old", values, (0, 1, 2))
    means = {
        "inductive/adapted/loss": values.mean(axis=0),
        "inductive/adapted/accuracy": -values.mean(axis=0),
    }
    np.savez(old / "episodes" / "maml-test.npz", **means)
    new = make_seeded_run(tmp_path / "new", values + 1, (0, 1, 2))
    compared = comparison.compare([old, new], LOSS)
    assert any("no values of single seeds in the files of old" in note for note in compared["notes"])
    assert compared["differences"][0]["seeds"] == []
