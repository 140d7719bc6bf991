"""Between the chunks of a stage: validation, checkpoints, what is best, and what is written when."""

import math
import os
import signal
import threading
from collections.abc import Iterator

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from helpers.runs import (
    SEVERAL,
    SINGLE,
    assert_same_run,
    evaluate,
    last_checkpoints,
    read_json,
    train,
    weights,
)
from metarun import assembly, compilation_cache, errors, signals
from metarun.evaluation import results, statistics
from metarun.progress import Progress
from metarun.runs import checkpoints, files, manifest, metrics
from metarun.training import stage_run, validation

SUMMARISE = statistics.summarise


class Recorder(Progress):
    """Keep what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple] = []

    def run_opened(self, path, devices, resumed) -> None:
        self.heard.append(("opened", resumed))

    def stage_started(self, stage, step, steps, tasks_per_step) -> None:
        self.heard.append(("started", stage, step, steps, tasks_per_step))

    def advanced(self, stage, step, count, seconds, metrics) -> None:
        self.heard.append(("advanced", stage, step, count))

    def validated(self, stage, step, values, best) -> None:
        self.heard.append(("validated", stage, step, best))

    def stage_ended(self, stage) -> None:
        self.heard.append(("ended", stage))

    def measuring(self, stage, split, episodes) -> None:
        self.heard.append(("measuring", stage, split, episodes))


def replace_losses(monkeypatch, losses: list[float]) -> None:
    """Let the evaluations of the next run find these losses: its validations, then the final one."""
    replacements: Iterator[float] = iter(losses)

    def summarise(*arguments):
        summary = SUMMARISE(*arguments)
        for metrics_of_variant in summary.values():
            metrics_of_variant["loss"]["mean"] = math.nan
        summary["inductive/adapted"]["loss"]["mean"] = next(replacements)
        return summary

    monkeypatch.setattr(statistics, "summarise", summarise)
    monkeypatch.setattr(results, "summarise", summarise)


def train_validated(monkeypatch, path, losses: list[float], *overrides: str, resume: bool = False):
    """Train with a validation every 4 steps that finds these losses; the final evaluation finds 0."""
    replace_losses(monkeypatch, [*losses, 0.0])
    return train(path, SINGLE, "evaluation.every=4", "training.steps=12", *overrides, resume=resume)


def test_progress_hears_the_whole_story_in_order(tmp_path):
    recorder = Recorder()
    train(tmp_path / "run", SINGLE, "training.steps=12", "checkpoint.every=null", progress=recorder)
    assert recorder.heard == [
        ("opened", False),
        ("started", "maml", 0, 12, 4),
        ("advanced", "maml", 4, 4),
        ("advanced", "maml", 8, 4),
        ("advanced", "maml", 10, 2),
        ("validated", "maml", 10, True),
        ("advanced", "maml", 12, 2),
        ("ended", "maml"),
        ("measuring", "maml", "test", 6),
    ]


def test_checkpoints_are_saved_when_due_when_best_and_at_the_end(tmp_path, monkeypatch):
    saved = []

    def save(self, step, weights, memory, facts, best, original=checkpoints.Checkpoints.save):
        saved.append((step, best))
        original(self, step, weights, memory, facts, best)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", save)
    train_validated(monkeypatch, tmp_path / "run", [3.0, 2.0, 2.5], "checkpoint.every=6")
    assert saved == [(4, True), (6, False), (8, True), (12, False)]


def test_without_a_period_checkpoints_are_saved_by_time(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(stage_run, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(checkpoints.Checkpoints, "save", lambda self, step, *_: saved.append(step))
    train(tmp_path / "run", SINGLE, "training.steps=12", "checkpoint.every=null", "evaluation.every=null")
    assert saved == [4, 8, 12]
    with pytest.raises(errors.CheckpointError):  # nothing was saved that could be evaluated
        evaluate(tmp_path / "run")


def test_the_lines_that_a_checkpoint_counts_on_are_on_the_disk_before_it(tmp_path, monkeypatch):
    order = []

    def sync(self, original=metrics.MetricsFile.sync):
        order.append(("sync", self.size()))
        original(self)

    def save(self, step, weights, memory, facts, best, original=checkpoints.Checkpoints.save):
        order.append(("save", facts["metrics_bytes"]))
        original(self, step, weights, memory, facts, best)

    monkeypatch.setattr(metrics.MetricsFile, "sync", sync)
    monkeypatch.setattr(checkpoints.Checkpoints, "save", save)
    train(tmp_path / "run", SINGLE, "training.steps=12")
    pairs = list(zip(order[::2], order[1::2], strict=True))
    assert len(pairs) >= 2
    assert all(first == ("sync", second[1]) and second[0] == "save" for first, second in pairs)


@pytest.mark.parametrize(("higher", "best"), [(False, [True, False, True]), (True, [True, True, False])])
def test_better_is_what_the_family_says(tmp_path, monkeypatch, higher, best):
    def build_oriented(selection, kept, build=assembly.build_family):
        family = build(selection)
        objective = family.problem.objective._replace(higher_is_better=("loss",) if higher else ())
        return family._replace(problem=family.problem._replace(objective=objective))

    monkeypatch.setattr(assembly, "build_family", build_oriented)
    recorder = Recorder()
    replace_losses(monkeypatch, [2.0, 3.0, 1.0, 0.0])
    train(tmp_path / "run", SINGLE, "evaluation.every=4", "training.steps=12", progress=recorder)
    assert [event[3] for event in recorder.heard if event[0] == "validated"] == best


def test_a_validation_equal_to_the_best_is_not_better(tmp_path, monkeypatch):
    run = train_validated(monkeypatch, tmp_path / "run", [1.0, 1.0, 1.0])
    assert [checkpoint.step for checkpoint in read_checkpoints(run) if checkpoint.best] == [4]


def read_checkpoints(run) -> list[manifest.Checkpoint]:
    folders = sorted((run / "checkpoints/maml").iterdir(), key=lambda folder: int(folder.name))
    return [checkpoints.open_checkpoint(folder) for folder in folders]


def test_a_validation_that_is_not_a_number_is_never_the_best(tmp_path, monkeypatch):
    run = train_validated(monkeypatch, tmp_path / "run", [math.nan, 5.0, math.nan])
    assert [checkpoint.step for checkpoint in read_checkpoints(run) if checkpoint.best] == [8]
    assert last_checkpoints(run)["maml"].facts["best"] == 5.0


def test_a_best_validation_of_infinity_survives_an_interruption(tmp_path, monkeypatch):
    """JSON has no infinity: the checkpoint spells it."""

    class Stop(Progress):
        def validated(self, stage, step, values, best) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    replace_losses(monkeypatch, [math.inf, 0.0])
    overrides = ("evaluation.every=4", "training.steps=12")
    with pytest.raises(signals.Stopped):
        train(tmp_path / "run", SINGLE, *overrides, progress=Stop())
    run = train_validated(monkeypatch, tmp_path / "run", [7.0, 8.0], resume=True)
    assert last_checkpoints(run)["maml"].facts["best"] == 7.0
    assert_same_run(run, train_validated(monkeypatch, tmp_path / "reference", [math.inf, 7.0, 8.0]))


def test_a_signal_in_a_validation_saves_the_state_and_puts_the_validation_off(tmp_path, monkeypatch):
    """In the middle, and twice after the last step."""
    overrides, path = ("evaluation.every=8", "checkpoint.every=null"), tmp_path / "run"

    def make_interrupted(stage, session, make=validation.make_validation):
        validate = make(stage, session)

        def interrupt(weights):
            if session.run.metrics.read()[-1]["step"] == step:
                os.kill(os.getpid(), signal.SIGTERM)
                answered.wait(30.0)  # it would be over before the signal is heard
            return validate(weights)

        return interrupt

    for step in (8, 24, 24):
        answered = threading.Event()
        with monkeypatch.context() as patch, pytest.raises(signals.Stopped):
            patch.setattr(validation, "make_validation", make_interrupted)
            train(path, SINGLE, *overrides, resume=True)
        answered.set()
        saved = last_checkpoints(path)["maml"]
        assert saved.step == step and saved.facts["unvalidated"]
        assert read_json(path / "status.json")["status"] == "preempted"
    assert_same_run(
        train(path, SINGLE, *overrides, resume=True), train(tmp_path / "reference", SINGLE, *overrides)
    )
    assert "unvalidated" not in last_checkpoints(path)["maml"].facts


def test_a_signal_in_the_final_evaluation_ends_it(single, tmp_path):
    class Stop(Progress):
        def measuring(self, stage, split, episodes) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(signals.Stopped):
        train(tmp_path / "run", SINGLE, progress=Stop())
    assert not (tmp_path / "run/result.json").exists()
    assert read_json(tmp_path / "run/status.json")["status"] == "preempted"
    assert_same_run(train(tmp_path / "run", resume=True), single)


def test_a_signal_before_the_first_step_leaves_a_run_that_can_be_begun(single, tmp_path, monkeypatch):
    """While the data are prepared, nothing has to be saved."""

    answered = threading.Event()

    def build(*arguments, build_tasks=assembly.build_tasks):
        os.kill(os.getpid(), signal.SIGTERM)
        if not answered.wait(30.0):
            pytest.fail("the signal is answered later")
        return build_tasks(*arguments)

    with monkeypatch.context() as patch, pytest.raises(signals.Stopped):
        patch.setattr(assembly, "build_tasks", build)
        train(tmp_path / "run", SINGLE, fresh=True)
    answered.set()
    assert_same_run(train(tmp_path / "run", resume=True), single)


def test_a_family_without_validation_split_is_not_validated(tmp_path, monkeypatch):
    def build_without_validation(selection, kept, build=assembly.build_family):
        family = build(selection)
        return family._replace(data={name: family.data[name] for name in ("train", "test")})

    monkeypatch.setattr(assembly, "build_family", build_without_validation)
    run = train(tmp_path / "run", SINGLE, "training.steps=12", "evaluation.checkpoint=best")
    assert {row["split"] for row in metrics.read(run / "metrics.jsonl")} == {"train", metrics.SPEED}
    assert read_json(run / "result.json")["step"] == 12


def test_a_second_interrupt_is_not_waited_for():
    with signals.StopRequest() as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


def test_after_a_stop_request_the_handlers_of_before_are_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with signals.StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(signals.Stopped, match="SIGTERM") as raised:
            stop.check()
    assert raised.value.exit_code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_disk_that_fills_up_ends_the_run_with_what_was_saved_intact(single, tmp_path, monkeypatch):
    def full(self, rows, original=metrics.MetricsFile.append):
        if self.size() > 1000:
            with files.storage_errors(self.path):
                raise OSError(28, "No space left on device")
        original(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(metrics.MetricsFile, "append", full)
        with pytest.raises(errors.StorageError) as raised:
            train(tmp_path / "run")
    assert raised.value.exit_code == 8
    status = read_json(tmp_path / "run/status.json")
    assert status["status"] == "failed"
    assert last_checkpoints(tmp_path / "run")["maml"].step == status["step"] > 0
    run = train(tmp_path / "run", resume=True)
    assert weights(run) == weights(single)


def test_facts_of_another_version_are_refused(tmp_path):
    facts = {"step": 1, "best": None, "seconds": 0.0, "mood": "good"}
    checkpoint = manifest.Checkpoint(tmp_path, "maml", 1, False, facts, {}, {})
    with pytest.raises(errors.CheckpointError, match="mood"):
        stage_run.read_facts(checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("draws_as", ["first", None])
def test_a_stage_that_draws_as_another_of_its_kind_ends_with_the_same_bits(several, tmp_path, draws_as):
    path = several
    if draws_as:
        path = train(tmp_path / "run", SEVERAL, f"stages.second.draws_as={draws_as}")
    first, second = (
        {name.split()[1]: content for name, content in weights(path).items() if name.startswith(stage)}
        for stage in ("first", "second")
    )
    assert first
    assert (first == second) == (draws_as == "first")


@pytest.fixture
def cache_events(monkeypatch, tmp_path) -> Iterator[list[str]]:
    """The events of a new cache of compiled programs, in which every program is kept, however small."""
    events: list[str] = []
    monkeypatch.setattr(compilation_cache, "use_private_folder", lambda: None)
    settings = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    set_cache(settings)
    jax.monitoring.register_event_listener(listener := lambda name, **_: events.append(name))
    yield events
    jax.monitoring.unregister_event_listener(listener)
    set_cache(before)


def set_cache(settings: dict) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


@pytest.mark.slow
def test_other_rates_steps_and_seeds_need_no_new_program(tmp_path, cache_events):
    train(tmp_path / "first", fresh=True)
    cache_events.clear()
    other = (
        "algorithm.inner_lr=0.02",
        "training.optimizer.learning_rate=0.002",
        "training.steps=16",
        "seed=5",
    )
    train(tmp_path / "second", SINGLE, *other, fresh=True)
    assert cache_events.count("/jax/compilation_cache/cache_misses") == 0
    assert cache_events.count("/jax/compilation_cache/cache_hits") >= 3  # start, chunk, measurement
