"""Which trials train side by side, and what the config of their run says."""

import itertools

import pytest

from helpers import sweeps
from helpers.sweeps import INNER, RATE
from metarun import config
from metarun.sweeps import programs
from metarun.sweeps.programs import Trial

WIDTH = "model.hidden"


def divide(settings, seeds=(0,), obstacles=None, apart=None):
    return programs.divide(dict(enumerate(settings)), seeds, lambda _: obstacles or {}, apart)


def test_settings_that_differ_in_numbers_and_seeds_are_one_program():
    divided = divide([{RATE: 0.1}, {RATE: 0.2}], (0, 5), {RATE: None})
    assert divided == ([[Trial(0, 0), Trial(0, 5), Trial(1, 0), Trial(1, 5)]], [])


def test_what_is_no_argument_is_a_program_for_each_value_and_says_why():
    settings = [{RATE: rate, WIDTH: width, "steps": 3} for rate in (0.1, 0.2) for width in ([8], [4])]
    divided = divide(settings, obstacles={RATE: None, "steps": "a shape depends on it"})
    assert [[trial.setting for trial in group] for group in divided.groups] == [[0, 2], [1, 3]]
    # The steps do not differ, so that nothing is said about them.
    assert divided.reasons == ["model.hidden cannot be an argument: it is no number"]


def test_a_zero_is_a_program_of_its_own():
    divided = divide([{RATE: 0.1}, {RATE: 0.0}, {RATE: 0.2}], obstacles={RATE: None})
    assert [[trial.setting for trial in group] for group in divided.groups] == [[0, 2], [1]]
    assert divided.reasons == [f"{RATE} cannot be an argument: a zero stays a constant"]


def test_a_reason_for_all_trials_makes_each_a_program():
    assert divide([{}], (0, 1), apart="because") == ([[Trial(0, 0)], [Trial(0, 1)]], ["because"])


def test_the_config_of_a_program_has_the_single_run_of_every_trial(tmp_path):
    asked = sweeps.ask(tmp_path, f"{RATE}=0.1,0.2", f"{INNER}=0.01,0.03", "seed=3,8")
    settings = dict(enumerate(asked.list_grid()))
    trials = [Trial(setting, seed) for setting in settings for seed in asked.seeds]
    run_config = programs.make_config(asked, settings, trials, 2)
    assert (run_config.replicas, run_config.evaluation.split) == (8, "validation")
    for place, trial in enumerate(trials):
        single = programs.make_config(asked, settings, [trial], 2)
        assert config.make_trial_config(run_config, place) == single
        assert single.stages[0].training.steps == 12
        assert (single.seed, sweeps.find_rate(single)) == (trial.seed, settings[trial.setting][RATE])


def test_a_rung_is_read_back_from_its_file():
    rung = programs.Rung(3, [programs.Program("000-0-000", [Trial(0, 1), Trial(2, 1)])], ["why"])
    assert programs.from_json(programs.to_json(rung)) == rung
    assert rung.list_settings() == [0, 2]


@pytest.mark.parametrize(("size", "limit", "sizes"), [(4, 4, [4]), (5, 2, [1, 2, 2]), (1, 8, [1])])
def test_a_group_is_cut_into_pieces_of_one_size(size, limit, sizes):
    group = [Trial(place, 0) for place in range(size)]
    pieces = programs.cut_group(group, limit)
    assert ([len(piece) for piece in pieces], list(itertools.chain(*pieces))) == (sizes, group)
