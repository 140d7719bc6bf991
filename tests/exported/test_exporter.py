"""`metarun export`: a learner in a file answers as the run does."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import metarun
from helpers import commands, drawings, opened_runs, runs, untrained
from metarun import assembly, base, errors, losses
from metarun.exported import exporter, header, loader, portable
from metarun.exported.portable import Sizes
from metarun.finished.prediction import TrainedRun

pytestmark = pytest.mark.usefixtures("own_place")

SINUSOID = {"name": "sinusoid", "shots": 4, "queries": 3}
BLOBS = {"name": "linear", "kind": "blobs", "dimensions": 3, "ways": 3, "shots": 2, "queries": 2}
MLP = {"name": "mlp", "hidden": [4]}
# One algorithm of each kind.
LEARNERS = {
    "gradients": (BLOBS, MLP, {"name": "maml", "inner_steps": 2, "inner_lr": 0.1}),
    "metric": (BLOBS, MLP, {"name": "protonet"}),
    "neural process": (SINUSOID, MLP, {"name": "neural_process", "width": 4, "depth": 1, "heads": 2}),
    "memory": (SINUSOID, MLP, {"name": "memory", "width": 4}),
    "hypernetwork": (BLOBS, {"name": "affine"}, {"name": "hypernetwork", "width": 4, "depth": 1, "embed": 4}),
    "fixed memory": (
        SINUSOID | {"shots": 2},
        MLP,
        {"name": "memory", "reader": "attention", "width": 4, "keys": [4, 4], "values": [4, 4]},
    ),
}
FIXED = ("fixed memory",)  # those that take exactly as many support examples as in training


def pack(run: TrainedRun, ways: int, attempts: list[Sizes]) -> bytes:
    """Return the content of a file."""
    programs = portable.export_learner(run, ways, attempts, ("cpu",))
    return exporter.pack(programs, header.describe(run, programs, ways, ("cpu",)))


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_file_answers_as_the_run_does(kind):
    run = untrained.make_learner(*LEARNERS[kind])
    ways = run.spec.ways or 0
    trained = exporter.choose_sizes(exporter.outline_episode(run), ways or 1, ways or 1, None)
    content = pack(run, ways, portable.list_sizes(trained, fixed=False))
    learner = loader.load(io.BytesIO(content))
    fixed = trained.support if kind in FIXED else None
    assert learner.header["support"]["count"] == fixed
    count = fixed or 8  # more than in training, and uneven for three classes
    support, queries = exporter.draw_examples(run, count, 5, ways)
    expected = run.adapt(support).predict(queries)
    answers = learner.adapt(support).predict(queries)
    assert answers.shape == expected.shape and answers.dtype == np.float32
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(answers, expected, atol=1e-6, rtol=1e-6)


def test_programs_that_differ_from_the_run_are_not_written(single, monkeypatch, metarun_, tmp_path):
    def change(run, portable_, *rest):
        described = describe(run, portable_, *rest)
        portable_.weights[0] = portable_.weights[0] + 1
        return described

    describe = header.describe
    monkeypatch.setattr(header, "describe", change)
    said = metarun_("export", single, "--out", tmp_path / "learner.metarun")
    commands.assert_three_lines(said, 1, "answer differently from the run", "report it")
    assert not (tmp_path / "learner.metarun").exists()


def test_the_command_says_what_the_file_takes_and_how_it_was_checked(single, metarun_, tmp_path):
    said = metarun_(
        "export", single, "--out", tmp_path / "learner.metarun", "--shots", 5, "--platforms", "cpu,cuda"
    )
    assert said.code == 0
    lines = dict(line.split(maxsplit=1) for line in said.out[:-1])
    assert lines["support"] == "exactly 5 examples" and lines["platforms"] == "cpu, cuda"
    assert (
        lines["inputs"].startswith("float32 (example, 1)") and "answers differ by at most" in lines["checked"]
    )
    learner = loader.load(tmp_path / "learner.metarun")
    assert learner.describe().splitlines() == said.out[:-2]
    with zipfile.ZipFile(tmp_path / "learner.metarun") as archive:
        assert archive.read(loader.MODULE) == Path(loader.__file__).read_bytes()
        assert json.loads(archive.read("header.json"))["run"]["step"] == 24


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["--ways", 3], 2, "has no ways"),
        (["--shots", 0], 2, "too few"),
        (["--platforms", "cpu,gpu"], 2, "no platform gpu"),
        (["--stage", "second"], 2, "no stage second"),
        (["training.steps=3"], 3, "training.steps"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused(single, metarun_, arguments, code, what):
    commands.assert_three_lines(metarun_("export", single, "--out", "x", *arguments), code, what)


def test_the_extra_is_named_if_it_is_missing(single, metarun_, monkeypatch):
    monkeypatch.setattr(exporter.importlib.util, "find_spec", lambda name: None)
    said = metarun_("export", single, "--out", "x")
    commands.assert_three_lines(said, 2, "flatbuffers, which is not installed", "metarun[export]")


def make_family(spec: base.Spec, form: base.Pictures | None = None) -> base.TaskFamily:
    """Make a family of tasks of zeros."""

    def sample(data, key) -> base.Episode:
        examples = base.Examples(jnp.zeros((2, *spec.input_shape)), jnp.zeros((2,), jnp.int32))
        return base.Episode(examples, examples)

    return base.TaskFamily({"train": ()}, sample, base.Problem(spec, losses.classification()), form=form)


def open_untraceable(spec: base.Spec) -> TrainedRun:
    """Open a learner whose `adapt` fails with a ValueError of its own."""

    def make(problem: base.Problem) -> base.Algorithm:
        def adapt(weights, support):
            raise ValueError("the support has an odd number of examples", "give an even one")

        return base.Algorithm(lambda *_: base.Weights(()), lambda *_: (0.0, {}), adapt, lambda learner, x: x)

    return opened_runs.open_learner("odd", make_family(spec), make)


def test_a_run_on_sentences_is_refused():
    run = open_untraceable(base.Spec((5,), 7, "tokens", vocabulary=6))
    with pytest.raises(errors.UsageError, match="translates sentences"):
        exporter.write(run, Path("x"))


def test_what_the_algorithm_says_of_a_support_that_it_refuses_is_told(tmp_path):
    run = open_untraceable(base.Spec((2,), 2, "classes"))
    with pytest.raises(errors.ConfigError, match="odd number of examples") as caught:
        portable.export_learner(run, 2, [Sizes(3, 1)], ("cpu",))
    assert caught.value.remedy == "give an even one"


def test_the_header_says_how_a_picture_becomes_an_input(tmp_path):
    run_config = runs.load(tmp_path, drawings.PICTURES)
    family = assembly.outline_tasks(run_config).family
    run = opened_runs.open_learner("none", family, lambda problem: pytest.fail("it is never built"))
    inputs = header.describe_inputs(run)
    assert (inputs["kind"], inputs["shape"], inputs["range"]) == ("pictures", [16, 16, 1], [0, 1])
    assert (
        inputs["inverted"] and "1 is ink" in inputs["meaning"] and "16 x 16 pixels, grey" in inputs["meaning"]
    )
    assert "probability of each of the 4 classes" in header.describe_targets(run, 4)["meaning"]


def test_the_most_open_sizes_are_tried_first():
    trained = Sizes(10, 4)
    assert portable.list_sizes(trained, fixed=False) == [Sizes(None, None), Sizes(10, None), trained]
    assert portable.list_sizes(trained, fixed=True) == [Sizes(10, None), trained]


def test_the_measured_value_is_that_of_the_inner_steps_of_the_learner(single, tmp_path):
    run = shutil.copytree(single, tmp_path / "run")
    result = runs.read_json(run / "result.json")
    measured = result["stages"]["maml"]["inductive"]
    measured["inner_steps"] = {"3": {"loss": {"mean": 0.125, "ci95": 0.5}}}
    (run / "result.json").write_text(json.dumps(result))
    said = [header.describe_result(metarun.load(run, inner_steps=steps)) for steps in (None, 3, 4)]
    assert f"loss {measured['adapted']['loss']['mean']:.4g} ±" in str(said[0])
    assert said[1:] == ["loss 0.125 ± 0.5 over 6 test episodes of the run", None]


def test_platforms_are_a_list_or_a_text():
    assert (
        exporter.choose_platforms("cpu,cuda") == exporter.choose_platforms(["cpu", "cuda"]) == ("cpu", "cuda")
    )
    with pytest.raises(errors.UsageError, match="no platform xpu"):
        exporter.choose_platforms("xpu")
