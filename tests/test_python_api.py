"""`import metarun`: what a notebook or a script calls."""

import logging
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import metarun
from helpers import runs
from metarun import errors, signals
from metarun.api import access, call_options, calls, views
from metarun.finished import remeasurement
from metarun.runs import metrics
from metarun.sweeps import execution

pytestmark = pytest.mark.usefixtures("own_place")

SMALL = {
    "task": {"name": "sinusoid", "shots": 5, "queries": 5},
    "model": {"name": "mlp", "hidden": (8,)},
    "algorithm": {"name": "maml"},
    "training": {"steps": 24, "tasks_per_step": 4, "chunk": 4},
    "evaluation": {"every": np.int64(10), "episodes": 6},
    "accelerator": {"platform": "cpu", "devices": 1},
}


def test_every_name_is_there_and_a_wrong_one_is_not():
    assert set(metarun.__all__) <= set(dir(metarun))
    assert all(callable(getattr(metarun, name)) for name in metarun.__all__)
    assert metarun.MetarunError is errors.MetarunError
    assert not hasattr(metarun, "trian")


@pytest.mark.slow
def test_a_dict_trains_as_the_file_with_its_values(single, monkeypatch):
    monkeypatch.setattr("metarun.experiment.draw_pictures", lambda *_: None)
    run = metarun.train(SMALL, {"checkpoint.every": 8}, checkpoint__keep=2)
    assert run.path.parent == Path("runs/notebook") and run.status == "done"
    assert run.config["checkpoint.every"] == 8 and run.config["checkpoint.keep"] == 2
    assert runs.results(run.path) == runs.results(single)
    assert metarun.Run("latest").path == run.path and [*map(repr, metarun.list_runs())] == [repr(run)]
    argv = runs.read_json(run.path / "environment.json")["argv"]
    assert argv == ["metarun", "train", f"{run.path}/config.yaml", "checkpoint.every=8", "checkpoint.keep=2"]


def test_a_run_says_what_it_is_and_what_came_out(single):
    run = metarun.Run(single)
    loss = run.result["stages"]["maml"]["inductive"]["adapted"]["loss"]
    outcome = f"loss {loss['mean']:.4f} ± {loss['ci95']:.4f}"
    assert repr(run) == f"<metarun run run: done, step 24/24, {outcome}>"
    assert outcome in repr(run.result) and outcome in run._repr_markdown_()
    assert str(run.result).splitlines()[0] == "| stage | mode | learner | loss |"
    assert Path(run) == single and run.config["training.steps"] == 24


def test_metrics_are_columns(single):
    run, rows = metarun.Run(single), metrics.read(single / "metrics.jsonl")
    columns = run.metrics()
    assert columns["step"].tolist() == list(range(1, 25)) and columns["step"].dtype == np.int64
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    np.testing.assert_array_equal(columns["loss"], losses)
    assert run.metrics("validation")["mode"].tolist()[0] == "inductive"
    header, dots = 2, 1  # lines of the table beside both ends
    assert len(str(columns).splitlines()) == header + 2 * views.HEAD + dots
    assert repr(columns).startswith("<metarun metrics: 24 rows of step, ")


def test_columns_have_nan_where_a_row_has_none():
    columns = views.make_columns([{"a": 1, "b": "NaN", "c": None}, {"a": 2, "d": "x|y"}])
    assert columns.keys() == {"a", "b", "d"} and columns["a"].tolist() == [1, 2]
    assert np.isnan(columns["b"]).all() and columns["d"].tolist() == ["", "x|y"]
    assert "x\\|y" in str(columns) and "NaN" not in repr(columns)
    none = views.make_columns([])
    assert (none.count_rows(), str(none), repr(none)) == (0, "no rows", "<metarun metrics: 0 rows>")


def test_nothing_is_compared_with_nothing_in_three_lines():
    with pytest.raises(errors.UsageError, match="no run to compare"):
        metarun.compare([])


def test_pictures_are_those_of_the_run(single, tmp_path):
    run = shutil.copytree(single, tmp_path / "run")
    (run / "pictures").mkdir()
    (run / "pictures" / "maml-curves.png").write_bytes(b"png")
    pictures = metarun.Run(run).pictures
    assert repr(pictures) == "<metarun pictures: maml-curves>"
    assert pictures["maml-curves"]._repr_png_() == b"png" and "maml-curves.png" in repr(
        pictures["maml-curves"]
    )


def test_a_run_predicts_as_its_learner_does(single):
    run, x = metarun.Run(single), np.linspace(-2, 2, 5)[:, None]
    learner = metarun.load(run)
    adapted = learner.adapt((x, np.sin(x)))
    np.testing.assert_array_equal(run.predict((x, np.sin(x)), x), adapted.predict(x))
    assert run.learner() is run.learner()
    assert "maml on sinusoid, stage maml, step 24, inductive, 1 inner steps" in repr(learner)
    assert repr(adapted).startswith("<adapted metarun learner of ")


def test_evaluate_measures_what_the_overrides_say(single, monkeypatch):
    def measure(finished, progress):
        return runs.read_json(single / "result.json") | {"asked": finished}

    monkeypatch.setattr(remeasurement, "measure", measure)
    result = metarun.Run(single).evaluate(
        {"evaluation.episodes": 3}, evaluation__modes=["transductive"], split="train"
    )
    evaluation = result["asked"].config.evaluation
    assert (evaluation.episodes, evaluation.modes, evaluation.split) == (3, ("transductive",), "train")
    with pytest.raises(errors.ConfigError, match=r"training\.steps"):
        access.evaluate(single, training__steps=3)


def test_a_comparison_is_a_table_and_a_picture(single, tmp_path):
    other = shutil.copytree(single, tmp_path / "other")
    compared = metarun.compare([metarun.Run(single), other])
    assert [entry["label"] for entry in compared["ranking"]] == ["run", "other"]
    assert compared["differences"][0]["mean"] == 0
    assert repr(compared).startswith("<metarun comparison by loss: run ")
    assert (
        str(compared).startswith("|  | learner | loss | minus the best |")
        and "lower is better" in compared._repr_markdown_()
    )
    assert compared.draw(tmp_path / "c.png")._repr_png_().startswith(b"\x89PNG")


def test_a_sweep_asks_for_what_the_command_would(monkeypatch):
    def run(directory, asked, plan):
        line = {"setting": {"algorithm.inner_lr": 0.1}, "mean": 0.5, "ci95": 0.1, "behind": None}
        return {
            "keys": ["algorithm.inner_lr"],
            "metric": "loss",
            "ranking": [line],
            "asked": asked,
            "jobs": plan.jobs,
        }

    monkeypatch.setattr(execution, "run", run)
    settings = {"algorithm.inner_lr": np.array([0.01, 0.1]), "seed": "0..2", "training.steps": 5}
    ranking = metarun.sweep("sinusoid/maml", settings, jobs=2)
    asked = ranking["asked"]
    assert asked.list_grid() == [{"algorithm.inner_lr": 0.01}, {"algorithm.inner_lr": 0.1}]
    assert (asked.seeds, asked.base.stages[0].training.steps, ranking["jobs"]) == ((0, 1, 2), 5, 2)
    assert ranking["sweep"] == f"sweeps/sinusoid-maml-{asked.hash()}"
    assert (
        repr(ranking) == "<metarun sweep of 1 settings: algorithm.inner_lr=0.1 is best, loss 0.5000 ± 0.1000>"
    )
    assert str(ranking).splitlines()[-1] == "| 0.1 | 0.5000 ± 0.1000 |  |"


def test_values_of_python_become_overrides():
    named = {"training__steps": np.int64(5), "algorithm__name": "maml", "task": {"name": "sinusoid"}}
    texts = call_options.list_overrides({"model.hidden": (4, 4), "evaluation.every": None}, named)
    expected = ["model.hidden=[4, 4]", "evaluation.every=null", "training.steps=5", "algorithm.name=maml"]
    assert texts == [*expected, "task={name: sinusoid}"]
    assert call_options.format_axis("a.b", [[4], [8, 8]]) == "a.b=[4],[8, 8]"


@pytest.mark.parametrize(
    ("config", "overrides", "what"),
    [
        (SMALL | {"seed": object()}, {}, "no number, text, list or dict"),
        (SMALL | {"extends": "base.yaml"}, {}, "extends no file"),
        (SMALL | {"trainig": {}}, {}, "trainig"),
        (SMALL, {"training.stepps": 3}, "stepps"),
        ("sinusoid/mmal", {}, "no config of this name"),
    ],
)
def test_a_wrong_config_is_a_metarun_error(config, overrides, what):
    with pytest.raises(metarun.MetarunError, match=what):
        metarun.train(config, overrides)
    assert not Path("runs").exists()


def test_what_is_resumed_is_a_run():
    with pytest.raises(errors.UsageError, match="resumed where it lies"):
        metarun.train(SMALL, resume=True)
    with pytest.raises(errors.CheckpointError, match="no run here"):
        metarun.train("sinusoid/maml", resume=True)


def test_a_thread_is_told_that_it_cannot_train():
    caught: list[Exception] = []

    def train() -> None:
        try:
            metarun.train(SMALL)
        except errors.UsageError as error:
            caught.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert "a thread cannot train" in str(caught[0])


def test_ctrl_c_is_a_keyboard_interrupt_and_sigterm_is_not():
    with pytest.raises(KeyboardInterrupt, match="the state is saved"), call_options.interrupting(Path("run")):
        raise signals.Stopped(signal.SIGINT)
    with pytest.raises(signals.Stopped), call_options.interrupting(Path("run")):
        raise signals.Stopped(signal.SIGTERM)


def test_a_resumed_run_keeps_its_directory(single):
    source, path = calls.find_places(single, None, resume=True)
    assert (source, path) == (single / "config.yaml", single)


def test_a_call_shows_warnings_alone_whatever_the_root_logger_shows(capsys):
    logger, root = logging.getLogger("metarun"), logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(root)
    before, logger.handlers, logger.propagate = logger.level, [], True
    try:
        logger.setLevel(logging.INFO)
        with call_options.quiet():
            logger.info("step 1")
            logger.warning("too slow")
    finally:
        logging.getLogger().removeHandler(root)
        logger.setLevel(before)
    assert capsys.readouterr() == ("", "warning: too slow\n")
    assert logger.propagate and logger.handlers == []
