"""YAML to a RunConfig: a right file survives a round trip, a wrong one is refused before jax is imported."""

import dataclasses
import inspect
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from metarun import config as configuration
from metarun import plugins
from metarun.config import binder, choices, optimizers, schema, yaml_file
from metarun.config.origin import Origin
from metarun.errors import ConfigError

PLUGINS = {
    "task": {
        "sinusoid": "amplitude: tuple[float, float] = (0.1, 5.0)\n    shots: Annotated[int, AtLeast(1)] = 10",
        "omniglot": "ways: Annotated[int, AtLeast(2)] = 5\n    path: str = ''",
    },
    "model": {
        "mlp": "hidden: tuple[Annotated[int, AtLeast(1)], ...] = (40, 40)\n    bias: bool = True",
        "conv4": "width: Annotated[int, AtLeast(1)] = 64\n    scale: float | Literal['learned'] = 1.0",
    },
    "algorithm": {
        "maml": "inner_steps: Annotated[int, AtLeast(1)] = 1\n    inner_lr: Annotated[float, Above(0)] = 0.1",
        "distill": "teacher: str\n    head: Head = Head()",
        "centroid": "fits: bool = True\n\n    @property\n    def trains_nothing(self):\n        return self.fits",
    },
}
HEADER = """\
import jax_must_not_be_imported
from dataclasses import dataclass
from typing import Annotated, Literal
from metarun.ranges import Above, AtLeast

@dataclass(frozen=True)
class Head:
    size: Annotated[int, AtLeast(1)] = 8

@dataclass(frozen=True)
class Config:
    """

VALID = """\
# A small run.
task: {name: sinusoid, shots: 5}
model: {name: mlp, hidden: [40, 40]}
algorithm:
  name: maml
  inner_lr: 0.01
training: {steps: 100, tasks_per_step: 25, optimizer: {name: adam, learning_rate: 1e-3}}
evaluation:
  every: 50
  modes: [inductive, transductive]
checkpoint: {every: 50, keep: 3}
accelerator: {platform: auto}
seed: 7
"""
STAGES = """\
task: {name: omniglot}
stages:
  - name: teacher
    model: {name: conv4}
    algorithm: {name: maml}
    training: {steps: 10}
  - name: student
    model: {name: conv4, width: 16, scale: learned}
    algorithm: {name: distill, teacher: teacher, head: {size: 3}}
    training: {steps: "${stages.0.training.steps}", clip_norm: 1}
"""
MINIMAL = "task: {name: omniglot}\nmodel: {name: conv4}\nalgorithm: {name: maml}\ntraining: {steps: 1}\n"


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, modules in PLUGINS.items():
        folder = tmp_path / "plugins" / f"{kind}s"
        folder.mkdir(parents=True)
        for name, fields in modules.items():
            (folder / f"{name}.py").write_text(HEADER + fields)
        monkeypatch.setitem(plugins.FOLDERS, kind, folder)


@pytest.fixture
def load(tmp_path: Path):
    """Loads a text as `run.yaml`."""

    def load(text: str | bytes, *overrides: str) -> configuration.RunConfig:
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return configuration.load(path, overrides)

    return load


@pytest.fixture
def refuse(load):
    """The ConfigError that refuses a text and overrides; it has exit code 3 and three printable lines."""

    def refuse(text: str | bytes, *overrides: str) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        error = caught.value
        assert error.exit_code == 3
        assert len(str(error).splitlines()) == 3
        assert all(line and line.isprintable() for line in (error.what, error.where, error.remedy))
        return error

    return refuse


# What is right.


def test_a_valid_file_gives_typed_values(load):
    run = load(VALID)
    (stage,) = run.stages
    assert stage.name == "maml" == stage.algorithm.name
    assert run.task.config.shots == 5 and run.task.config.amplitude == (0.1, 5.0)
    assert stage.model.config.hidden == (40, 40)
    assert stage.training.optimizer == configuration.Selection("adam", optimizers.Adam(learning_rate=1e-3))
    assert run.evaluation.modes == ("inductive", "transductive")
    assert run.seed == 7


def test_stages_are_a_list_and_may_share_values_by_reference(load):
    teacher, student = load(STAGES).stages
    assert student.training.steps == teacher.training.steps == 10
    assert student.algorithm.config.head.size == 3
    assert student.model.config.scale == "learned" and teacher.model.config.scale == 1.0
    assert type(student.training.clip_norm) is float


CENTROID = (
    "  - {name: nearest, model: {name: conv4}, algorithm: {name: centroid, fits: FITS}, training: TRAINING}\n"
)


@pytest.mark.parametrize(
    ("training", "tasks"), [("{}", 32), ("{tasks_per_step: 7}", 7), ("{steps: 1, tasks_per_step: 7}", 7)]
)
def test_a_stage_that_trains_nothing_needs_no_steps(training, tasks, load):
    text = STAGES + CENTROID.replace("FITS", "true").replace("TRAINING", training)
    expected = configuration.Training(steps=1, tasks_per_step=tasks)
    assert load(text).stages[2].training == expected
    if training == "{}":
        assert load(text.replace(", training: {}", "")).stages[2].training == expected


@pytest.mark.parametrize(
    ("training", "words"),
    [(", training: TRAINING", "the training has no end"), ("", "stages.2.training is missing")],
)
def test_a_stage_that_trains_needs_its_steps(training, words, refuse):
    text = STAGES + CENTROID.replace(", training: TRAINING", training.replace("TRAINING", "{}"))
    refused = refuse(text.replace("FITS", "false"))
    assert words in refused.what
    assert "key stages.2.training" in refused.where


def test_sections_that_have_defaults_may_be_left_out(load):
    run = load(MINIMAL)
    assert run.evaluation == configuration.Evaluation()
    assert run.checkpoint == configuration.Checkpoint()
    assert run.stages[0].training == configuration.Training(steps=1)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (VALID, []),
        (STAGES, []),
        (MINIMAL, []),
        (STAGES.partition("  - name: student")[0], []),
        (
            MINIMAL,
            ["training.optimizer={name: sgd, momentum: 0.9, schedule: {name: step, factor: 0.5, every: 3}}"],
        ),
        (MINIMAL, ["training.optimizer={schedule: {name: cosine, final: 0.1}, learning_rate: 1e-5}"]),
        (MINIMAL, ["evaluation.inner_steps=[0, 1, 10]", "seed=4294967295", "accelerator.devices=2"]),
        *[
            (MINIMAL, [f"task.path={json.dumps(path)}"])
            for path in ["no", "1e-3", "null", "010", "a: b #c", "~", "µ\t", "\x85a", " x", "1_0"]
        ],
    ],
)
def test_the_resolved_config_loads_back_to_an_equal_one(text, overrides, load):
    run = load(text, *overrides)
    written = configuration.to_yaml(run)
    assert load(written) == run
    assert ("stages:" in written) == (text not in (VALID, MINIMAL))


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("training.steps=5", lambda run: run.stages[0].training.steps, 5),
        (
            "evaluation.modes=[transductive, inductive]",
            lambda run: run.evaluation.modes,
            ("transductive", "inductive"),
        ),
        ("evaluation.modes=transductive", lambda run: run.evaluation.modes, ("transductive",)),
        ("evaluation.inner_steps=3", lambda run: run.evaluation.inner_steps, (3,)),
        ("evaluation.every=null", lambda run: run.evaluation.every, None),
        ("model={name: conv4, width: 8}", lambda run: run.stages[0].model.config.width, 8),
        ("training.clip_norm=1", lambda run: run.stages[0].training.clip_norm, 1.0),
        ("training.optimizer.name=lion", lambda run: run.stages[0].training.optimizer.config.b2, 0.99),
        (
            "training.optimizer.schedule.name=cosine",
            lambda run: run.stages[0].training.optimizer.config.schedule.name,
            "cosine",
        ),
        ("evaluation.episodes=${training.steps}", lambda run: run.evaluation.episodes, 100),
        ("accelerator.precision=bfloat16", lambda run: run.accelerator.precision, "bfloat16"),
    ],
)
def test_an_override_stands_in_place_of_the_file(override, read, expected, load):
    assert read(load(VALID, override)) == expected


@pytest.mark.parametrize("key", ["stages.1.training.steps", "stages.student.training.steps"])
def test_a_stage_is_overridden_by_index_or_name(key, load):
    assert [stage.training.steps for stage in load(STAGES, f"{key}=3").stages] == [10, 3]


@pytest.mark.parametrize(
    ("text", "steps"),
    [("1e3", 1000), ("1E+3", 1000), ("1000.0", 1000), ("12e2", 1200)],
)
def test_a_whole_number_may_be_written_with_an_exponent(text, steps, load):
    training = load(VALID, f"training.steps={text}").stages[0].training
    assert training.steps == steps and type(training.steps) is int


def test_another_model_drops_the_options_of_the_old_one_and_says_so(load, caplog):
    model = load(VALID, "model.name=conv4").stages[0].model
    assert model == load(VALID, "model={name: conv4}").stages[0].model
    assert caplog.messages == ["model.name=conv4 drops model.hidden of mlp"]


def test_the_same_model_again_drops_nothing(load, caplog):
    assert load(VALID, "model.name=mlp") == load(VALID)
    assert caplog.messages == []


@pytest.mark.parametrize("before", [True, False])
def test_options_of_other_overrides_outlive_another_model(before, load, caplog):
    overrides = ["model.width=16", "model.name=conv4"]
    model = load(VALID, *(overrides if before else overrides[::-1])).stages[0].model
    assert model.config.width == 16
    assert len(caplog.messages) == 1 and "hidden" in caplog.text and "width" not in caplog.text


def test_another_optimizer_keeps_what_all_optimizers_have(load, caplog):
    text = VALID.replace("name: adam, ", "b1: 0.5, ")  # the default optimizer is adam
    optimizer = load(text, "training.optimizer.name=sgd").stages[0].training.optimizer
    assert optimizer == configuration.Selection("sgd", optimizers.SGD(learning_rate=1e-3))
    assert caplog.messages == ["training.optimizer.name=sgd drops training.optimizer.b1 of adam"]


def test_another_name_of_a_stage_drops_nothing(load, caplog):
    assert load(STAGES, "stages.student.name=pupil").stages[1].model.config.width == 16
    assert caplog.messages == []


def test_another_model_of_a_stage_drops_the_options_of_the_old_one(load, caplog):
    assert load(STAGES, "stages.student.model.name=mlp").stages[1].model.name == "mlp"
    assert "drops stages.1.model.width, stages.1.model.scale of conv4" in caplog.text


def test_the_defaults_of_sections_without_a_name_are_those_of_the_schema():
    assert choices.DEFAULTS["optimizer"] == schema.ADAM.name
    assert choices.DEFAULTS["schedule"] == optimizers.CONSTANT.name


def test_the_last_override_of_a_key_counts(load):
    assert load(VALID, "seed=1", "seed=2").seed == 2


def test_options_without_a_name_are_those_of_the_default_optimizer(load):
    optimizer = load(MINIMAL, "training.optimizer.learning_rate=0.5").stages[0].training.optimizer
    assert optimizer == configuration.Selection("adam", optimizers.Adam(learning_rate=0.5))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("1e-3", 1e-3),
        ("1.", 1.0),
        (".5", 0.5),
        ("010", 10),
        ("0o10", "0o10"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("~", None),
        ("-.inf", float("-inf")),
        ("'1'", "1"),
        ("<<", "<<"),
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    parsed = yaml_file.parse(text, "here").value
    assert parsed == value and type(parsed) is type(value)


# What is wrong. Each row: the claim, the text or overrides, and what the error must say.


@pytest.mark.parametrize(
    ("claim", "text", "words"),
    [
        ("an empty file", "", "empty"),
        ("a file of comments", "# nothing\n", "empty"),
        ("a list", "- 1\n- 2\n", "not a mapping"),
        ("a scalar", "hello", "not a mapping"),
        ("two documents", "a: 1\n---\nb: 2\n", "run.yaml:2"),
        ("a syntax error", "a: [1,\nb: 2\n", "not YAML"),
        ("a tab as indentation", "a:\n\tb: 1\n", "run.yaml:2"),
        ("a repeated key", VALID + "seed: 8\n", "seed is given twice"),
        ("a repeated nested key", "training:\n  steps: 1\n  steps: 2\n", "run.yaml:3"),
        ("a tag", "a: !!int 3", "tags"),
        ("a Python object", "a: !!python/object/apply:os.system ['echo']", "tags"),
        ("the empty tag", "a: ! 3", "tags"),
        ("an anchor", "a: &x 1", "anchors"),
        ("an alias", "a: 1\nb: *a", "run.yaml:2"),
        ("deep nesting in brackets", "a: " + "[" * 100_000, "16 deep"),
        ("deep nesting by indentation", "".join(" " * depth + "a:\n" for depth in range(300)), "run.yaml:17"),
        ("very many values", "a: [" + "1," * 20_000 + "]", "values"),
        ("an integer beyond 64 bits", "seed: 9223372036854775808", "64 bits"),
        ("an integer of 100,000 digits", "seed: " + "9" * 10**5, "64 bits"),
        ("a key that is a number", "1: 2", "not text"),
        ("a key that is a list", "? [a]\n: 1", "not text"),
        ("a key that is true", "true: 1", "not text"),
        ("a file that is too long", "#" * (2**17 + 1), "128 KiB"),
        ("Latin-1", "a: 1\nb: é".encode("latin-1"), "run.yaml:2"),
        ("UTF-16", VALID.encode("utf-16"), "UTF-8"),
        ("a control character", "a: \x07", "not YAML"),
        ("an impossible character", 'a: "\\U00110000"', "not YAML"),
        ("an impossible YAML version", "%YAML 1." + "9" * 5000 + "\n---\na: 1", "not YAML"),
        ("a resolver", "seed: ${oc.env:HOME}", "not a reference"),
        ("an unknown resolver", "seed: ${anything:1}", "not a reference"),
        ("a nested reference", "seed: ${a${b}}", "not a reference"),
        ("a reference within text", "seed: 1${seed}", "not a reference"),
        ("an open reference", "seed: '${seed'", "not a reference"),
        ("a value left open", "seed: ???", "left open"),
    ],
)
def test_yaml_that_could_hurt_is_refused(claim, text, words, refuse):
    assert words in str(refuse(text))


@pytest.mark.parametrize(
    ("claim", "reference"),
    [
        ("to nothing", "${nowhere.at_all}"),
        ("to itself", "${evaluation.episodes}"),
        ("to a section", "${training}"),
        ("to a list", "${model.hidden}"),
        ("into a value", "${seed.x}"),
    ],
)
def test_a_reference_must_end_at_a_value(claim, reference, refuse):
    error = refuse(VALID, f"evaluation.episodes={reference}")
    assert error.where == f"override evaluation.episodes={reference}"


def test_a_long_chain_of_references_is_refused_without_a_crash(refuse):
    chain = "".join(f"k{index}: ${{k{index + 1}}}\n" for index in range(4000))
    assert "k0" in refuse(chain + "k4000: 1\n").where


@pytest.mark.parametrize(
    ("claim", "old", "new", "line", "key", "words"),
    [
        ("an unknown key names the nearest", "seed: 7", "sead: 7", 13, "sead", "did you mean seed?"),
        ("a section too", "checkpoint:", "checkpoints:", 11, "checkpoints", "did you mean checkpoint?"),
        ("a nested key too", "steps: 100", "stepz: 100", 7, "training.stepz", "did you mean steps?"),
        ("a key names its module", "inner_lr", "inner_ls", 6, "algorithm.inner_ls", "algorithm maml has no"),
        (
            "an unknown module",
            "name: maml",
            "name: mamel",
            5,
            "algorithm.name",
            "allowed: centroid, distill, maml",
        ),
        ("an unknown optimizer", "adam", "adamm", 7, "training.optimizer.name", "did you mean adam?"),
        ("a module by a number", "name: mlp", "name: 5", 3, "model.name", "there is no model 5"),
        ("a module by a path", "name: mlp", "name: ../tasks/omniglot", 3, "model.name", "there is no model"),
        ("a section without a name", "name: mlp, ", "", 3, "model", "model.name is missing"),
        ("a bare module name", "{name: mlp, hidden: [40, 40]}", "mlp", 3, "model", "write it as"),
        ("a bare value", "{platform: auto}", "cpu", 12, "accelerator", "keys platform, devices"),
        ("an empty section", " {platform: auto}", "", 12, "accelerator", "null"),
        ("a missing field", "steps: 100, ", "", 7, "training", "a whole number, at least 1"),
        ("text for a whole number", "steps: 100", "steps: many", 7, "training.steps", "'many'"),
        ("a float for a whole number", "steps: 100", "steps: 1.5", 7, "training.steps", "1.5"),
        ("a float that has lost digits", "steps: 100", "steps: 1e17", 7, "training.steps", "1e+17"),
        ("a boolean for a whole number", "seed: 7", "seed: true", 13, "seed", "true"),
        ("null for a whole number", "seed: 7", "seed: ~", 13, "seed", "null"),
        ("a list for a whole number", "seed: 7", "seed: [7]", 13, "seed", "[7]"),
        ("a section for a whole number", "seed: 7", "seed: {a: 1}", 13, "seed", "a section"),
        ("a negative seed", "seed: 7", "seed: -1", 13, "seed", "between 0 and 4294967295"),
        ("a seed beyond 32 bits", "seed: 7", "seed: 4294967296", 13, "seed", "between 0 and 4294967295"),
        ("no steps", "steps: 100", "steps: 0", 7, "training.steps", "at least 1"),
        ("an infinite rate", "1e-3", ".inf", 7, "training.optimizer.learning_rate", "inf"),
        ("a rate that is not a number", "1e-3", ".nan", 7, "training.optimizer.learning_rate", "nan"),
        ("a rate that overflows", "1e-3", "1e999", 7, "training.optimizer.learning_rate", "inf"),
        ("no learning rate", "1e-3", "0", 7, "training.optimizer.learning_rate", "above 0"),
        ("a boolean for a number", "0.01", "true", 6, "algorithm.inner_lr", "a number, above 0"),
        ("a word that is not a choice", "auto", "gpus", 12, "accelerator.platform", "did you mean gpu?"),
        ("a wrong item", "transductive]", "both]", 10, "evaluation.modes.1", "allowed: inductive"),
        ("a list item out of range", "[40, 40]", "[40, 0]", 3, "model.hidden.1", "at least 1"),
        ("a repeated mode", "transductive]", "inductive]", 8, "evaluation", "inductive twice"),
        ("no modes", "[inductive, transductive]", "[]", 8, "evaluation", "modes is empty"),
        ("null modes", "[inductive, transductive]", "null", 10, "evaluation.modes", "null"),
        ("a pair of three", "shots: 5", "amplitude: [1, 2, 3]", 2, "task.amplitude", "a list of 2"),
        ("a chunk too odd", "steps: 100", "steps: 100, task_chunk: 4", 7, "training", "does not divide"),
        (
            "a part with two turns",
            "steps: 100",
            "steps: 100, turns: [a, [b, a]]",
            7,
            "training",
            "turns has a twice",
        ),
        ("a turn of nothing", "steps: 100", "steps: 100, turns: [a, []]", 7, "training", "without parts"),
        (
            "a rate of a part without a turn",
            "steps: 100",
            "steps: 100, turns: [a], part_rates: [{part: b, factor: 2}]",
            7,
            "training",
            "b, which has no turn",
        ),
        ("both forms", "seed: 7", "stages: []", 3, "model", "both stages and a model"),
        ("control characters", "seed: 7", r'"se\u001b[31m\ned": 7', 13, r"se\x1b[31m\ned", "no key"),
    ],
)
def test_a_wrong_value_is_refused_with_its_line_and_key(claim, old, new, line, key, words, refuse, tmp_path):
    assert old in VALID
    error = refuse(VALID.replace(old, new, 1))
    assert words in str(error)
    assert error.where == f"{tmp_path}/run.yaml:{line}, key {key}"


@pytest.mark.parametrize(
    ("claim", "old", "new", "words"),
    [
        ("two stages of one name", "name: student", "name: teacher", "stages has teacher twice"),
        ("a stage name that is a path", "name: student", "name: ../student", "cannot name files"),
        ("a stage name that is an index", "name: student", "name: '1'", "cannot name files"),
        ("a stage without a name", "name: student\n    model", "model", "stages.1.name is missing"),
        ("a stage without its option", ", teacher: teacher", "", "stages.1.algorithm.teacher is missing"),
        (
            "draws of a later stage",
            "name: teacher\n",
            "name: teacher\n    draws_as: student\n",
            "no stage before it",
        ),
        (
            "draws of no stage",
            "name: student\n",
            "name: student\n    draws_as: teachr\n",
            "name one of teacher",
        ),
        ("a nested option", "size: 3", "sise: 3", "did you mean size?"),
        ("neither number nor word", "scale: learned", "scale: learnt", "a number, or learned"),
    ],
)
def test_a_wrong_stage_is_refused(claim, old, new, words, refuse):
    assert old in STAGES
    assert words in str(refuse(STAGES.replace(old, new, 1)))


def test_no_stages_are_refused(refuse):
    assert "stages is empty" in refuse("task: {name: omniglot}\nstages: []\n").what


def test_a_warmup_as_long_as_the_training_is_refused(refuse):
    schedule = "training.optimizer.schedule={name: cosine, warmup_steps: 100}"
    assert "warms up for 100 steps" in refuse(VALID, schedule).what


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.stepz=3", "did you mean steps?"),
        ("training.steps=many", "'many'"),
        ("training.steps=0", "at least 1"),
        ("trainin.steps=3", "did you mean training?"),
        ("training.steps", "needs `=`"),
        ("--seed=3", "no key --seed"),
        ("=3", "nothing is not a key"),
        ("", "needs `=`"),
        (".steps=3", ".steps is not a key"),
        ("training..steps=3", "not a key"),
        ("training[steps]=3", "not a key"),
        ("a" + ".a" * 20 + "=1", "not a key"),
        ("seed=", "no value"),
        ("seed= ", "no value"),
        ("training=3", "training is a section"),
        ("training=null", "training is a section"),
        ("model=conv4", "write model.name=conv4"),
        ("evaluation.inner_steps=0,1,5", "write [0,1,5]"),
        ("evaluation.modes=inductive,transductive", "write [inductive,transductive]"),
        ("model.hidden=40,forty", "write [40,forty]"),
        ("run_dir=runs/mine", "write --run-dir PLACE"),
        ("out=here", "write --run-dir PLACE"),
        ("seed.x=3", "seed is a value"),
        ("model.hidden.2=3", "model.hidden has no item 2"),
        ("model.hidden.x=3", "allowed: 0, 1"),
        ("seed=[1", "not YAML"),
        ("seed=!!int 3", "tags"),
        ("seed={a: 1, a: 2}", "given twice"),
        ("seed=${oc.env:HOME}", "not a reference"),
        ("seed=" + "9" * 5000, "64 bits"),
        ("seed=\udcff", "no"),
        ("stages.0.training.steps=3", "both stages and a model"),
    ],
)
def test_a_wrong_override_is_refused_by_name(override, words, refuse):
    error = refuse(VALID, override)
    assert words in str(error)
    if "both" not in words and override.isprintable() and len(override) < 300:
        assert error.where.startswith(f"override {override}"[:40])


def test_an_error_within_an_overriding_section_names_the_override_and_the_key(refuse):
    override = "model={name: conv4, widht: 3}"
    assert refuse(VALID, override).where == f"override {override}, key model.widht"


def test_a_missing_file_names_its_nearest_sibling(load, tmp_path):
    load(VALID)
    for wrong in (tmp_path / "runn.yaml", tmp_path):
        with pytest.raises(ConfigError) as caught:
            configuration.load(wrong)
        assert str(caught.value.where) == str(wrong)
    with pytest.raises(ConfigError, match=r"did you mean .*/run\.yaml"):
        configuration.load(tmp_path / "runn.yaml")


@pytest.mark.parametrize(
    "name", ["no/such/folder.yaml", "nul\0l.yaml", "x" * 5000, "new\nline.yaml", "/dev/zero", ""]
)
def test_a_path_that_cannot_be_read_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        configuration.load(name)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="not a file"):
        configuration.load(tmp_path / "pipe.yaml")


def test_any_mutation_of_a_valid_file_loads_or_is_a_config_error(load):
    generator, outcomes = random.Random(0), []
    for _ in range(400):
        text = _mutate(generator.choice([VALID, STAGES]), generator)
        overrides = [_mutate(generator.choice(OVERRIDES), generator)] if generator.random() < 0.5 else []
        try:
            run = load(text.encode(errors="replace"), *overrides)
            assert load(configuration.to_yaml(run)) == run
            outcomes.append("loads")
        except ConfigError as error:
            assert len(str(error).splitlines()) == 3
            outcomes.append("refused")
    assert {"loads", "refused"} == set(outcomes)


OVERRIDES = [
    "training.steps=5",
    "model={name: mlp}",
    "stages.student.model.width=3",
    "evaluation.modes=[inductive]",
]
FRAGMENTS = [
    *"{}[]:,-#&*!|>'\"%@` \n\t\0\x1b$~0",
    "${seed}",
    "${",
    "???",
    "null",
    "1e999",
    "<<",
    "- ",
    "é",
    "\u2028",
    "😀",
]


def _mutate(text: str, generator: random.Random) -> str:
    for _ in range(generator.randint(1, 3)):
        start = generator.randrange(len(text) + 1)
        end = min(len(text), start + generator.randint(0, 6))
        middle = generator.choice(
            [generator.choice(FRAGMENTS), text[start:end] * 2, "", text[start:end][::-1]]
        )
        text = text[:start] + middle + text[end:]
    return text


# Other promises.


def test_neither_loading_nor_refusing_imports_jax(tmp_path):
    program = f"""
import sys
from pathlib import Path
from metarun import config, plugins
from metarun.errors import ConfigError
for kind in plugins.FOLDERS:
    plugins.FOLDERS[kind] = Path({str(tmp_path)!r}, "plugins", kind + "s")
config.to_yaml(config.load({str(tmp_path / "run.yaml")!r}))
try:
    config.load({str(tmp_path / "run.yaml")!r}, ["training.stepz=1"])
except ConfigError:
    heavy = {{"jax", "jaxlib", "flax", "optax", "orbax", "numpy", "matplotlib"}} & set(sys.modules)
    print(sorted(heavy))
"""
    (tmp_path / "run.yaml").write_text(VALID)
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"


def test_every_optimizer_has_the_options_and_defaults_of_its_optax_function():
    optax = pytest.importorskip("optax")
    unsayable = {"mask", "mu_dtype", "accumulator_dtype"}
    newer = {"bias_correction", "bias_correction_mu", "bias_correction_nu", "eps_in_sqrt"}
    for name, config in optimizers.OPTIMIZERS.items():
        parameters = inspect.signature(getattr(optax, name)).parameters
        ours = optimizers.collect_options(config())
        theirs = {key: value.default for key, value in parameters.items() if key != "learning_rate"}
        assert ours == {key: theirs[key] for key in theirs if key not in unsayable | newer}, name


@pytest.mark.parametrize("kind", ["optimizer", "schedule"])
def test_every_option_of_an_optimizer_or_schedule_has_a_hint_that_can_be_bound(kind):
    for name in choices.list_names(kind):
        config = choices.read_config_class(kind, name)
        required = {"decay": 0.5, "factor": 0.5, "every": 1}
        fields = dataclasses.fields(config)
        options = {
            field.name: required[field.name] for field in fields if field.default is dataclasses.MISSING
        }
        bound = binder.bind(config, options, Origin("here", {}))
        assert bound == config(**options)


def test_an_annotation_that_yaml_cannot_hold_is_an_internal_error():
    @dataclasses.dataclass(frozen=True)
    class Odd:
        path: Path = Path()

    with pytest.raises(plugins.PluginError):
        binder.bind(Odd, {"path": "x"}, Origin("here", {}))


def test_two_stages_of_one_name_are_to_be_named_once():
    training = schema.Training(steps=1)
    stage = schema.Stage("a", schema.Selection("mlp", None), schema.Selection("maml", None), training)
    with pytest.raises(ValueError, match="twice") as refused:
        schema.RunConfig(task=schema.Selection("sinusoid", None), stages=(stage, stage))
    assert refused.value.args[1] == "name each once"
