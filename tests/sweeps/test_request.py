"""What a sweep is asked for: the command line and the section of the file, and what is refused."""

from pathlib import Path

import pytest

from helpers import sweeps
from helpers.runs import SINGLE
from helpers.sweeps import INNER, RATE
from metarun import config
from metarun.errors import ConfigError, UsageError
from metarun.sweeps import request

SECTION = (
    f"sweep: {{{RATE}: 'log(1e-3,1e-1,3)', {INNER}: [0.01, 0.1], seed: 0..1, training.steps: 12, halve: 2}}\n"
)


def test_the_command_line_and_the_section_ask_for_the_same(tmp_path):
    section = request.read(sweeps.write_base(tmp_path, SINGLE + SECTION), [])
    line = sweeps.ask(
        tmp_path, f"{RATE}=log(1e-3,1e-1,3)", f"{INNER}=0.01,0.1", "seed=0..1", "training.steps=12", halve=2
    )
    assert section.describe() == line.describe()
    assert section.hash() == line.hash()
    assert section.seeds == (0, 1)
    assert section.list_grid()[:2] == [{RATE: 1e-3, INNER: 0.01}, {RATE: 1e-3, INNER: 0.1}]
    assert section.load(section.list_grid()[1]).stages[0].algorithm.config.inner_lr == 0.1


def test_the_command_line_goes_before_the_section(tmp_path):
    file = sweeps.write_base(tmp_path, SINGLE + SECTION)
    asked = request.read(file, [f"{RATE}=0.5", f"{INNER}=0.2,0.3", "seed=7,9"], "random", 3, 4)
    assert [axis.key for axis in asked.axes] == [INNER]
    assert (asked.seeds, asked.search, asked.trials, asked.halve) == ((7, 9), "random", 3, 4)
    assert sweeps.find_rate(asked.base) == 0.5


def test_training_reads_a_file_with_the_section_as_without_it(tmp_path):
    with_section = config.load(sweeps.write_base(tmp_path, SINGLE + SECTION))
    assert with_section == config.load(sweeps.write_base(tmp_path))


def test_replicas_are_seeds(tmp_path):
    assert sweeps.ask(tmp_path, f"{RATE}=0.1,0.2", "replicas=3", "seed=4").seeds == (4, 5, 6)


@pytest.mark.parametrize(
    ("arguments", "options", "word"),
    [
        ([], {}, "nothing to try"),
        ([f"{RATE}=0.1"], {}, "nothing to try"),
        ([f"{RATE}=0.1,0.2"], {"trials": 3}, "tries all its settings"),
        ([f"{RATE}=0.1,0.2"], {"search": "tpe"}, "needs --trials"),
        (["seed=0..3"], {"search": "random", "trials": 2}, "needs --trials, and a key"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, arguments, options, word):
    with pytest.raises(UsageError, match=word):
        sweeps.ask(tmp_path, *arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ([f"{RATE}=0.1,fast"], {}, ("fast", RATE)),
        ([f"{RATE}=linear(-1,1,3)"], {"search": "random", "trials": 4}, ("-1", RATE)),
        (["evaluation.shots=1,5"], {}, ("evaluation.shots", "measured alike")),
        (["training.steps=10,20"], {"halve": 2}, ("halving sets the steps",)),
        (["seed=0..1", "replicas=2"], {}, ("replicas=2",)),
        (["seed=0.5,1.5"], {}, ("whole number",)),
        (["seed=-2..-1"], {}, ("seed",)),
        ([f"{RATE}=0.1,0.2"], {"search": "gird"}, ("gird", "grid")),
        (["training.optimiser.x=1,2"], {}, ("optimiser",)),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_trains(tmp_path, arguments, options, words):
    with pytest.raises(ConfigError) as raised:
        sweeps.ask(tmp_path, *arguments, **options)
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize(
    ("section", "word"),
    [
        ("sweep: 3", "sweep is no section"),
        ("sweep: {halve: 1}", "halve cannot be 1"),
        (f"sweep: {{{RATE}: 'log(1)'}}", "not three numbers"),
    ],
)
def test_what_is_wrong_in_the_section_has_its_line(tmp_path, section, word):
    with pytest.raises(ConfigError) as raised:
        request.read(sweeps.write_base(tmp_path, f"{SINGLE}{section}\n"), ["seed=0..1"])
    assert word in str(raised.value)
    assert "base.yaml:9" in raised.value.where


def test_all_settings_start_from_the_run_that_was_the_latest_when_the_sweep_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin_run(tmp_path / "runs/small/20261121-144857-dafe")
    asked = request.read(sweeps.write_base(tmp_path, SINGLE), [f"{INNER}=0.2,0.3", "init_from=latest"])
    begin_run(tmp_path / "runs/small/20261122-144857-beef")
    starts = [asked.load(setting).stages[0].init_from for setting in asked.list_grid()]
    assert starts == [str(tmp_path / "runs/small/20261121-144857-dafe/maml")] * 2


def begin_run(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(SINGLE)
    (path / "lock").touch()
