"""Plug-ins from elsewhere: an entry point, a module, a file; found without being run, and known by their whole code."""

import sys
from pathlib import Path

import pytest

from helpers.commands import assert_three_lines
from metarun import config, errors, outside, plugins

LEARNER = '''"""The mean of the support."""

from dataclasses import dataclass

import jax.numpy as jnp
from own_package.parts import shares

from metarun import base
from metarun.blocks import outer_loss


@dataclass(frozen=True)
class Config:
    scale: float = 1.0  # factor of the mean


def build(config, model, problem, earlier=None):
    def init(key, episodes, earlier):
        return base.Weights({"offset": jnp.zeros(problem.spec.output_size)})

    def adapt(weights, support):
        return config.scale * support.targets.mean(0) + weights.trained["offset"]

    def predict(learner, inputs):
        return jnp.broadcast_to(learner[None], (inputs.shape[0], *learner.shape))

    return base.Algorithm(init, outer_loss.make_query_loss(adapt, predict, problem.objective), adapt, predict)
'''
ALONE = LEARNER.replace("from own_package.parts import shares\n", "")
RUN = """\
task: {{name: sinusoid}}
model: {{name: affine}}
algorithm: {{name: {name}}}
training: {{steps: 2, tasks_per_step: 2, task_chunk: 2}}
evaluation: {{episodes: 2}}
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package with an algorithm, a helper of it, and a module that it does not use."""
    site = tmp_path / "site"
    files = {
        "own_package/__init__.py": "raise RuntimeError('this package must not be imported to be read')\n",
        "own_package/learner.py": LEARNER,
        "own_package/parts/__init__.py": "from own_package.parts import shares\n",
        "own_package/parts/shares.py": "from . import weights\n",
        "own_package/parts/weights.py": "ONE = 1\n",
        "own_package/unused.py": "",
        "own_package-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n",
        "own_package-1.0.dist-info/entry_points.txt": (
            "[metarun.algorithms]\nmean_of_support = own_package.learner\nmaml = own_package.learner\n"
        ),
    }
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(site)
    outside.list_offers.cache_clear()
    yield site
    outside.list_offers.cache_clear()
    for module in [name for name in sys.modules if name.partition(".")[0] == "own_package"]:
        del sys.modules[module]


def write_config(folder: Path, name: str) -> Path:
    file = folder / "own.yaml"
    file.write_text(RUN.format(name=name), "utf-8")
    return file


def test_what_a_package_offers_is_listed_and_a_name_of_our_own_stays_ours(package):
    names = plugins.list_names("algorithm")
    assert {"mean_of_support", "own_package.learner", "maml"} <= set(names)
    assert names.count("maml") == 1
    assert "task_embedding" in names
    assert plugins.find_source("algorithm", "maml").parent == plugins.FOLDERS["algorithm"]
    assert plugins.find_source("algorithm", "mean_of_support") == package / "own_package/learner.py"
    assert plugins.read_summary("algorithm", "mean_of_support") == "The mean of the support."
    assert "mean_of_support" not in plugins.list_own_names("algorithm")


def test_a_name_that_two_packages_offer_is_replaced_by_their_modules(package):
    other = package / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[metarun.algorithms]\nmean_of_support = other.learner\n")
    outside.list_offers.cache_clear()
    offers = outside.list_offers("algorithm")
    assert "mean_of_support" not in offers
    assert (offers["other.learner"].package, offers["own_package.learner"].package) == (
        "other",
        "own-package",
    )


def test_reading_a_module_runs_neither_it_nor_its_package(package):
    assert plugins.list_fields("algorithm", "own_package.learner")[0].comment == "factor of the mean"
    assert "own_package" not in sys.modules


@pytest.mark.parametrize(
    "name", ["own_package", "own_package.nothing", "own_package.learner.more", "no_such.module"]
)
def test_what_is_no_module_is_not_found(package, name):
    assert outside.find_source("algorithm", name) is None


def test_the_code_of_a_module_is_what_it_imports_of_its_package(package):
    code = outside.read_code("algorithm", "own_package.learner")
    assert sorted(code.files) == [
        "own_package/__init__.py",
        "own_package/learner.py",
        "own_package/parts/__init__.py",
        "own_package/parts/shares.py",
        "own_package/parts/weights.py",
    ]
    (package / "own_package/unused.py").write_text("changed = True\n")
    assert outside.read_code("algorithm", "own_package.learner").digest == code.digest
    (package / "own_package/parts/weights.py").write_text("ONE = 2\n")
    assert outside.read_code("algorithm", "own_package.learner").digest != code.digest


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("maml", "maml"),
        ("neural_process", "neural_process"),
        ("/somewhere/My Learner.py", "my_learner"),
        ("package.Learner", "learner"),
        ("/somewhere/2nd.py", "own_2nd"),
    ],
)
def test_a_label_names_keys_and_files(name, label):
    assert outside.make_label(name) == label


def test_a_path_begins_at_the_file_that_writes_it_and_an_override_where_it_is_typed(tmp_path, monkeypatch):
    (tmp_path / "configs/deep").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    for folder in ("configs", "here"):
        (tmp_path / folder / "learner.py").write_text(ALONE)
    write_config(tmp_path / "configs", "./learner.py")
    file = tmp_path / "configs/deep/c.yaml"
    file.write_text("extends: ../own.yaml\nalgorithm: {scale: 2}\n")
    monkeypatch.chdir(tmp_path / "here")
    run_config = config.load(file)
    (stage,) = run_config.stages
    assert (stage.name, stage.algorithm.config.scale) == ("learner", 2.0)
    assert stage.algorithm.name == str(tmp_path / "configs/learner.py")
    (stage,) = config.load(file, ["algorithm.name=learner.py"]).stages
    assert stage.algorithm.name == str(tmp_path / "here/learner.py")
    again = tmp_path / "here/again.yaml"
    again.write_text(config.to_yaml(run_config))
    assert config.load(again) == run_config


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nothing.py", "write the path as it is seen from the folder"),
        ("no_such.module", "PYTHONPATH"),
        ("mamml", "did you mean maml?"),
        ("[1]", "allowed: alfa"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_what_to_do(tmp_path, name, words):
    with pytest.raises(errors.ConfigError, match="there is no algorithm") as caught:
        config.load(write_config(tmp_path, name))
    assert words in caught.value.remedy


@pytest.mark.parametrize(
    ("source", "words", "line"),
    [
        ("def (", "this is not Python", ":1"),
        ("x = 1\n", "no function build", ".py"),
        ("def build(): pass\n", "needs Config", ".py"),
        (ALONE.replace("scale: float = 1.0", "scale: float = jnp.pi"), "needs jnp", ".py"),
    ],
)
def test_a_file_that_breaks_the_rules_is_refused_before_it_runs(tmp_path, source, words, line):
    (tmp_path / "learner.py").write_text(source)
    with pytest.raises(errors.ConfigError, match=words) as caught:
        config.load(write_config(tmp_path, "./learner.py"))
    assert str(caught.value.where).endswith(line)


def test_an_edited_file_is_a_new_module_and_what_it_raises_has_its_place(tmp_path):
    file = tmp_path / "learner.py"
    file.write_text(ALONE)
    before = plugins.load("algorithm", str(file))
    assert plugins.load("algorithm", str(file)) is before
    file.write_text(ALONE + "\nVERSION = 2\n")
    assert plugins.load("algorithm", str(file)).VERSION == 2
    file.write_text(ALONE + "\nraise RuntimeError('not today')\n")
    with pytest.raises(errors.ConfigError, match="RuntimeError: not today") as caught:
        plugins.load("algorithm", str(file))
    assert caught.value.where == f"{file}:{len(ALONE.splitlines()) + 2}"


@pytest.mark.slow
def test_a_run_keeps_its_code_and_is_not_opened_with_other_code(own_place, tmp_path, metarun_):
    file = tmp_path / "learner.py"
    file.write_text(ALONE)
    train = ("train", write_config(tmp_path, "./learner.py"), "--run-dir", "run")
    assert metarun_(*train).code == 0
    copy = Path("run/code/algorithm-learner/learner.py")
    assert copy.read_text() == ALONE
    assert metarun_("eval", "run").code == 0
    file.write_text(ALONE + "\n# a change\n")
    for command in (("eval", "run"), (*train, "--resume")):
        assert_three_lines(metarun_(*command), 3, "not the code that the run was trained with", str(copy))
    file.unlink()
    assert_three_lines(metarun_("eval", "run"), 3, "not where it was", str(copy))
    file.write_bytes(copy.read_bytes())
    assert metarun_(*train, "--resume").code == 0
    Path("run/code/hashes.json").write_text("{")
    assert_three_lines(metarun_("eval", "run"), 4, "cannot be read", "hashes.json")


def test_an_error_in_own_code_is_no_bug_of_metarun(own_place, tmp_path, metarun_):
    lines = ALONE.splitlines()
    (tmp_path / "learner.py").write_text(ALONE.replace("support.targets.mean(0)", "support.labels.mean(0)"))
    said = metarun_("train", write_config(tmp_path, "./learner.py"))
    place = next(number for number, line in enumerate(lines, start=1) if "config.scale *" in line)
    assert_three_lines(said, 3, "AttributeError", f"learner.py:{place}")


def test_the_hash_of_outside_code_names_the_family_of_the_episodes(tmp_path):
    file = tmp_path / "curves.py"
    file.write_text("VERSION = 1\n")
    first = plugins.identify("task", str(file))
    file.write_text("VERSION = 2\n")
    assert first.startswith("curves-")
    assert plugins.identify("task", str(file)) not in (first, str(file))
    assert plugins.identify("task", "sinusoid") == "sinusoid"


def test_the_list_says_which_package_a_plugin_is_from_and_what_is_wrong_with_it(package, metarun_):
    (package / "own_package/learner.py").write_text("x = (\n")
    rows = [line.split() for line in metarun_("list").out]
    (row,) = [row for row in rows if row[:1] == ["mean_of_support"]]
    assert " ".join(row[1:]) == "cannot be used: this is not Python: '(' was never closed [own-package]"
