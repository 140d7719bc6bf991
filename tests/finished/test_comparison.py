"""`metarun compare`: intervals of pairs against scipy, what it refuses, and what it shows."""

import json

import numpy as np
import pytest
from scipy import stats

from helpers.finished_runs import COUNT, make_run
from metarun import cli, errors
from metarun.cli import compare as command_file
from metarun.finished import comparison
from metarun.finished.comparison import Choice


@pytest.fixture
def values():
    generator = np.random.default_rng(0)
    hard = generator.normal(3, 2, COUNT)  # an episode is hard for all
    return [hard + generator.normal(shift, 0.1, COUNT) for shift in (0.0, 0.2, 0.0)]


@pytest.fixture
def runs(tmp_path, values):
    return [make_run(tmp_path / name, column) for name, column in zip("abc", values, strict=True)]


def test_the_interval_of_a_difference_is_that_of_the_pairs(runs, values):
    difference = comparison.compare(runs[:2], Choice(metric="loss"))["differences"][0]
    assert (difference["of"], difference["minus"], difference["differ"]) == ("a", "b", True)
    low, high = stats.ttest_rel(values[0], values[1]).confidence_interval(0.95)
    np.testing.assert_allclose(
        [difference["mean"] - difference["ci95"], difference["mean"] + difference["ci95"]],
        [low, high],
        rtol=1e-6,
    )
    low, high = stats.ttest_ind(values[0], values[1]).confidence_interval(0.95)
    assert low < 0 < high  # without pairs nothing could be said


def test_the_best_comes_first_whether_more_or_less_is_better(runs, values):
    by_loss = comparison.compare(runs, Choice(metric="loss"))
    by_accuracy = comparison.compare(runs, Choice())
    means = sorted((column.mean(), name) for column, name in zip(values, "abc", strict=True))
    for compared in (by_loss, by_accuracy):
        assert [entry["label"] for entry in compared["ranking"]] == [name for _, name in means]
        assert compared["ranking"][0]["behind"] is None
    assert (by_loss["higher_is_better"], by_accuracy["higher_is_better"]) == (False, True)
    assert by_accuracy["metric"] == "accuracy"


def test_weights_are_for_the_baselines_alone(runs, metarun_):
    said = metarun_("compare", *runs, "--weights", "net.safetensors")
    assert said.code == 2 and "add --baselines" in said.err[-1]


def test_the_headline_of_a_task_ranks_where_all_have_measured_it(runs, tmp_path, values):
    text = (
        "task: {name: translation}\nmodel: {name: seq2seq}\nalgorithm: {name: maml}\ntraining: {steps: 1}\n"
    )
    translation = make_run(tmp_path / "text", values[0], config=text)
    assert (comparison.read_headline([translation]), comparison.read_headline(runs)) == ("bleu", None)
    results = {run: comparison.read_result(run) for run in runs}
    first, *others = comparison.collect_candidates(results, "inductive", "adapted")[0]
    first = first._replace(values=first.values | {"bleu": first.values["loss"]})
    assert comparison.choose_metric([first], None, "bleu") == "bleu"
    assert comparison.choose_metric([first, *others], None, "bleu") == "accuracy"
    assert comparison.choose_metric([first], "loss", "bleu") == "loss"
    with pytest.raises(errors.DataError, match="no metric was measured for all"):
        comparison.choose_metric([first, first._replace(values={})], None)


@pytest.mark.parametrize("better", [["loss"], []])
def test_the_direction_is_taken_from_the_result(runs, values, better):
    for run in runs:
        change_result(run, higher_is_better=better)
    compared = comparison.compare(runs, Choice(metric="loss"))
    assert compared["higher_is_better"] == bool(better)
    means = sorted(
        ((column.mean(), name) for column, name in zip(values, "abc", strict=True)), reverse=bool(better)
    )
    assert [entry["label"] for entry in compared["ranking"]] == [name for _, name in means]


def change_result(run, **changes) -> None:
    """Change entries of a result; None removes one."""
    result = json.loads((run / "result.json").read_text()) | changes
    kept = {name: value for name, value in result.items() if value is not None}
    (run / "result.json").write_text(json.dumps(kept))


def test_a_result_of_before_it_told_the_direction_is_refused_with_code_4(runs):
    change_result(runs[1], higher_is_better=None)
    with pytest.raises(errors.DataError, match="older version") as raised:
        comparison.compare(runs, Choice())
    assert raised.value.exit_code == 4
    assert raised.value.where == str(runs[1] / "result.json")


def test_every_pair_is_compared_and_close_ones_do_not_differ(runs):
    compared = comparison.compare(runs, Choice(metric="loss"))
    differ = {frozenset((entry["of"], entry["minus"])): entry["differ"] for entry in compared["differences"]}
    assert differ == {frozenset("ab"): True, frozenset("bc"): True, frozenset("ac"): False}


def test_a_pair_that_differs_alone_may_not_differ_among_many(tmp_path):
    generator = np.random.default_rng(3)
    columns = [generator.normal(0, 1, COUNT) for _ in range(6)]
    step = generator.normal(0, 1, COUNT)
    columns[1] = columns[0] + step - step.mean() + 2.3 * step.std(ddof=1) / COUNT**0.5
    paths = [make_run(tmp_path / name, column) for name, column in zip("abcdef", columns, strict=True)]
    for count, differs in ((2, True), (6, False)):
        compared = comparison.compare(paths[:count], Choice(metric="loss"))
        pair = next(entry for entry in compared["differences"] if {entry["of"], entry["minus"]} == {"a", "b"})
        assert abs(pair["mean"]) > pair["ci95"]
        assert (pair["differ"], pair["p_holm"] < 0.05) == (differs, differs)
        assert pair["p"] < 0.05


def test_runs_of_one_config_are_called_by_the_keys_that_differ(tmp_path, values):
    paths = [
        make_run(tmp_path / f"maml/20260101-000000-aaa{seed}", column, config=f"seed: {seed}\n")
        for seed, column in enumerate(values)
    ]
    labels = {entry["label"] for entry in comparison.compare(paths, Choice())["ranking"]}
    assert labels == {"maml seed=0", "maml seed=1", "maml seed=2"}


def test_the_stages_of_one_run_are_compared_and_costs_add_up(tmp_path, values):
    run = make_run(tmp_path / "run", values[0], stages=("teacher", "student"))
    compared = comparison.compare([run], Choice(metric="loss"))
    assert [entry["label"] for entry in compared["ranking"]] == ["run/teacher", "run/student"]
    np.testing.assert_allclose(compared["differences"][0]["mean"], -1)
    costs = {entry["stage"]: entry["cost"] for entry in compared["ranking"]}
    assert costs["teacher"] == {
        "steps": 7, "seconds": 2.5, "earlier_seconds": 0.0, "parameters": 12, "state_bytes": 68,
        "flops": None, "all_parameters": None, "adaptation_flops": None, "prediction_flops": None,
        "flops_at_least": False, "ended_by": None, "replicas": 1,
    }  # fmt: skip
    assert costs["student"]["earlier_seconds"] == 2.5


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path, values):
    paths = [
        make_run(tmp_path / folder / "run", column) for folder, column in zip("ab", values, strict=False)
    ]
    labels = {entry["label"] for entry in comparison.compare(paths, Choice())["ranking"]}
    assert labels == set(map(str, paths))


def test_a_learner_that_is_not_finite_comes_last(tmp_path, runs):
    broken = make_run(tmp_path / "broken", np.full(COUNT, np.nan))
    compared = comparison.compare([broken, *runs], Choice(metric="loss"))
    assert compared["ranking"][-1]["label"] == "broken"
    assert not any(
        entry["differ"] for entry in compared["differences"] if "broken" in (entry["of"], entry["minus"])
    )


@pytest.mark.parametrize("other", [{"digest": "def"}, {"split": "validation"}])
def test_other_episodes_are_refused(tmp_path, runs, values, other):
    foreign = make_run(tmp_path / "foreign", values[0], **other)
    with pytest.raises(errors.UsageError, match="different episodes") as raised:
        comparison.compare([runs[0], foreign], Choice())
    assert raised.value.where == str(foreign)


@pytest.mark.parametrize(
    ("choice", "hint"),
    [
        (Choice(metric="bleu"), "accuracy"),
        (Choice(learner="5"), "inductive/adapted"),
        (Choice(mode="transductive"), "inductive/adapted"),
    ],
)
def test_what_was_not_measured_is_refused_with_what_was(runs, choice, hint):
    with pytest.raises(errors.UsageError) as raised:
        comparison.compare(runs, choice)
    assert hint in raised.value.remedy


def test_a_stage_without_such_a_learner_is_left_out_of_a_run_that_has_one(
    monkeypatch, capsys, tmp_path, values
):
    run = make_run(tmp_path / "run", values[0], ("teacher", "student", "distilled"))
    result = json.loads((run / "result.json").read_text())
    for stage in ("teacher", "student"):
        result["stages"][stage]["inductive"]["unadapted"] = {"loss": {"mean": 0.0, "ci95": 0.5}}
        columns = {f"inductive/{name}/loss": values[0] for name in ("adapted", "unadapted")}
        columns |= {"inductive/adapted/accuracy": -values[0]}
        np.savez(run / f"episodes/{stage}-test.npz", **columns)
    (run / "result.json").write_text(json.dumps(result))
    compared = comparison.compare([run], Choice(learner="unadapted"))
    assert [entry["label"] for entry in compared["ranking"]] == ["run/teacher", "run/student"]
    assert compared["left_out"] == ["run/distilled"]
    assert compared["ranking"][1]["cost"]["earlier_seconds"] == 2.5
    assert comparison.compare([run], Choice(metric="loss"))["left_out"] == []
    _, out, _ = command(monkeypatch, capsys, run, "--learner", "unadapted")
    assert "no such learner: run/distilled" in out


def test_one_learner_cannot_be_compared(runs):
    with pytest.raises(errors.UsageError, match="one learner"):
        comparison.compare([runs[0], runs[0]], Choice())


def test_a_run_without_a_result_is_not_finished(runs):
    (runs[1] / "result.json").unlink()
    with pytest.raises(errors.CheckpointError, match="not finished"):
        comparison.compare(runs, Choice())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"stages": '])
def test_a_damaged_result_is_named(runs, content):
    (runs[1] / "result.json").write_text(content)
    with pytest.raises(errors.DataError) as raised:
        comparison.compare(runs, Choice())
    assert raised.value.where == str(runs[1] / "result.json")


def test_damaged_values_are_named(runs):
    file = runs[1] / "episodes" / "maml-test.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(errors.DataError) as raised:
        comparison.compare(runs, Choice())
    assert raised.value.where == str(file)


def test_a_cost_is_left_out_where_the_checkpoint_is_gone(runs):
    (runs[0] / "checkpoints/maml/7/manifest.json").unlink()
    costs = [
        entry["cost"] for entry in comparison.compare(runs, Choice())["ranking"] if entry["label"] == "a"
    ]
    assert costs[0]["parameters"] is None


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["metarun", "compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0, *capsys.readouterr()


def test_the_table_the_json_and_the_picture(monkeypatch, capsys, runs, tmp_path):
    code, out, _ = command(monkeypatch, capsys, *runs, "--metric", "loss", "--plot", tmp_path / "out.png")
    assert code == 0
    assert "minus the best" in out.splitlines()[0]
    assert "30 test episodes (abc)" in out.splitlines()[-2]
    assert "cannot be told apart" in out.splitlines()[-1]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = command(monkeypatch, capsys, *runs, "--metric", "loss", "--json")
    assert json.loads(out) == comparison.compare(runs, Choice(metric="loss"))


def test_the_table_names_the_learners_that_each_cannot_be_told_apart_from(
    monkeypatch, capsys, runs, tmp_path, values
):
    noise = np.random.default_rng(1).normal(0, 0.1, (3, COUNT))
    same = [make_run(tmp_path / name, values[0] + column) for name, column in zip("def", noise, strict=True)]
    nan = make_run(tmp_path / "nan", np.full(COUNT, np.nan))
    _, out, _ = command(monkeypatch, capsys, runs[1], *same, nan, "--metric", "loss")
    header, *table = out.splitlines()[:6]
    place = header.index("close to")
    close = [line[place : place + len("close to")].strip() for line in table]
    assert close == ["2-3", "1, 3", "1-2", "", ""]
    assert len(out.splitlines()) == 10


def test_numbers_in_a_row_are_written_as_one_range():
    assert command_file.format_ranges([1, 3, 4, 5, 9]) == "1, 3-5, 9"
    assert command_file.format_ranges([]) == ""
    assert command_file.format_ranges(list(range(0, 40, 2))) == "0, 2, 4, 6, 8, 10, 12, 14, …"


def test_a_folder_that_is_no_run_is_three_lines_and_an_exit_code(monkeypatch, capsys, runs, tmp_path):
    code, _, err = command(monkeypatch, capsys, runs[0], tmp_path / "nothing")
    assert code == errors.CheckpointError.exit_code
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "where", "to do"]
