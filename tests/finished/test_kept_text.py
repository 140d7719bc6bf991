"""A run on somebody's own text carries what it needs: it translates without the text, and notices other text."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import metarun
from helpers import runs
from helpers.commands import assert_three_lines
from metarun.evaluation import episodes, simple_rules
from metarun.finished import answers, sentence_answers
from metarun.finished.finished_run import find_run
from metarun.finished.opened_run import open_run
from metarun.runs import task_file

WORDS = {"en": ("dog", "cat", "boat", "tree"), "de": ("Hund", "Katze", "Boot", "Baum")}
TEXT = """
task: {name: parallel_text, folder: FOLDER, shots: 2, queries: 2, vocabulary: 310, longest: 7, holdout: sentences}
model: {name: seq2seq, width: 4, heads: 1, feedforward: 4}
algorithm: {name: maml, inner_steps: 0}
training: {steps: 2, tasks_per_step: 2, chunk: 2}
evaluation: {every: null, episodes: 2, modes: [inductive]}
accelerator: {platform: cpu, devices: 1}
"""


def write_text(root: Path) -> Path:
    """Write 64 sentences of three words in two languages."""
    root.mkdir()
    for language, words in WORDS.items():
        lines = [f"{words[n // 16]} {words[n // 4 % 4]} {words[n % 4]}" for n in range(64)]
        (root / f"all.{language}").write_text("\n".join(lines) + "\n", "utf-8")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a run in `run` and the text in `text`. No test changes it."""
    place = tmp_path_factory.mktemp("kept")
    text = write_text(place / "text")
    runs.train(place / "run", TEXT.replace("FOLDER", str(text)))
    return place


@pytest.fixture
def moved(trained, tmp_path) -> Path:
    """A copy of the run alone, whose text cannot be found: its config names another folder."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def without_text(trained):
    """The time in which the text of the training is elsewhere."""
    (trained / "text").rename(trained / "elsewhere")
    yield trained / "elsewhere"
    (trained / "elsewhere").rename(trained / "text")


def ask(folder: Path) -> tuple[Path, Path]:
    support, query = folder / "support.tsv", folder / "query.txt"
    long = " ".join(["dog cat"] * 9) + "\tHund\n"
    support.write_text(f"dog cat boat\tHund Katze Boot\n{long}cat dog tree\tKatze Hund Baum\n", "utf-8")
    query.write_text("tree dog cat\n" + "dog cat boat tree, " * 5 + "\ncat cat\n", "utf-8")
    return support, query


@pytest.mark.slow
@pytest.mark.usefixtures("own_place", "shared_programs")
def test_a_copied_run_translates_without_the_text_and_long_sentences_in_parts(
    trained, moved, without_text, tmp_path, caplog, capsys
):
    support, query = ask(tmp_path)
    answered = answers.answer(metarun.load(moved), support, [query])
    assert [len(record["input"]) > 0 for record in answered.records] == [True] * 3
    assert [record.get("parts", 1) > 1 for record in answered.records] == [False, True, False]
    assert answered.facts == {"shots": 2, "in_parts": 1}
    warned = "1 of 3 sentences are too long and were translated in parts"
    said = caplog.text + capsys.readouterr().err
    assert warned in said and "1 of 3 pairs are too long and are left out: dog cat" in said


@pytest.mark.slow
@pytest.mark.usefixtures("own_place", "shared_programs")
def test_an_evaluation_takes_the_text_from_where_a_copy_is_and_draws_the_same_episodes(
    metarun_, trained, moved, without_text
):
    missing = metarun_("eval", moved)
    assert_three_lines(missing, 4, "there is no such folder", "task.folder=DIR")
    opened = open_run(find_run(moved, [f"task.folder={without_text}"]))
    result = json.loads((moved / "result.json").read_text())
    frozen = episodes.freeze(opened.tasks, opened.run.config.evaluation)
    assert episodes.hash_episodes(frozen, opened.tasks.recipe) == result["episodes"]["hash"]
    rules = simple_rules.measure(frozen)
    assert simple_rules.summarise(rules) == result["baselines"]
    assert "in any language" in result["data"][0]


@pytest.mark.slow
@pytest.mark.usefixtures("own_place", "shared_programs")
def test_other_text_is_refused_by_an_evaluation_and_by_a_resumed_run(metarun_, trained, moved, tmp_path):
    other = write_text(tmp_path / "other")
    text = (other / "all.en").read_text()
    (other / "all.en").write_text(text.replace("dog", "cow", 1))
    said = metarun_("eval", moved, f"task.folder={other}")
    assert_three_lines(said, 4, "not those that the run was trained on", str(other), "restore them")
    original = (trained / "text/all.en").read_bytes()
    try:
        (trained / "text/all.en").write_bytes(original.replace(b"dog", b"cow", 1))
        said = metarun_("train", "--resume", moved)
    finally:
        (trained / "text/all.en").write_bytes(original)
    assert_three_lines(said, 4, "not those that the run was trained on")


@pytest.mark.slow
@pytest.mark.usefixtures("own_place", "shared_programs")
def test_the_baseline_stands_beside_the_result(metarun_, trained):
    result = json.loads((trained / "run/result.json").read_text())
    ((rule, metrics),) = result["baselines"].items()
    assert rule == "copy of the nearest support target"
    kept = json.loads((trained / "run/baselines.json").read_text())["baselines"][rule]
    np.testing.assert_allclose(metrics["bleu"]["mean"], np.mean(kept["bleu"]))
    said = metarun_("compare", trained / "run")
    assert said.code == 0 and any(rule in line for line in said.out)


def test_sentences_are_answered_by_length_and_come_back_in_their_order():
    seen = []

    def predict(inputs):
        seen.append((inputs["source"] > 0).sum(axis=1).tolist())
        return inputs["source"] * 2

    source = np.array([[5, 6, 7, 2], [8, 2, 0, 0], [5, 6, 2, 0], [9, 2, 0, 0]])
    said = sentence_answers.answer_by_length(predict, {"source": source, "prefix": source})
    np.testing.assert_array_equal(said, 2 * source)
    assert seen == [[2, 2, 3, 4]]


@pytest.mark.slow
def test_a_run_of_an_older_version_goes_by_the_text_with_a_warning(trained, moved, caplog, capsys):
    new = metarun.load(moved)
    (moved / task_file.FILE).unlink()
    # As a version wrote them that knew no seals.
    for file in [*moved.rglob("manifest.json"), moved / "result.json"]:
        content = json.loads(file.read_text())
        content = {name: value for name, value in content.items() if name not in ("sealed", "sha256")}
        file.write_text(json.dumps(content | ({"format": 2} if "format" in content else {})))
    old = metarun.load(moved)
    assert "keeps nothing of its data" in caplog.text + capsys.readouterr().err
    texts = ["dog cat boat"]
    np.testing.assert_array_equal(
        old.form.encode(texts, texts).targets, new.form.encode(texts, texts).targets
    )
