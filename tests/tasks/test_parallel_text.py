"""The user's own parallel text: what is read, what is refused in three lines, and what is held out."""

import dataclasses
import functools
import gzip
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders, trees
from metarun import assembly, config
from metarun.config import Evaluation, Selection
from metarun.data import aligned_files, meanings, sentence_pairs, subwords
from metarun.data.aligned_files import Group
from metarun.errors import CheckpointError, DataError
from metarun.tasks import _copied_targets, _sentence_parts, _sentences, parallel_text
from metarun.tasks.parallel_text import sentence_splits, sentence_tables, text_record

SMALL = {"shots": 3, "queries": 4}
HOLDOUTS = ("pairs", "reverse", "sentences")
each_holdout = pytest.mark.parametrize("holdout", HOLDOUTS)


@functools.cache
def family(holdout: str):
    return builders.build_task("parallel_text", holdout=holdout, **SMALL)


@functools.cache
def pairs() -> list[sentence_pairs.Pair]:
    return sentence_pairs.read(Path(builders.example_config("parallel_text").folder)).pairs


@functools.cache
def episodes(holdout: str, split: str, count: int = 32):
    made = family(holdout)
    keys = jax.random.split(jax.random.key(0), count)
    return jax.device_get(jax.jit(jax.vmap(made.sample, in_axes=(None, 0)))(made.data[split], keys))


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def test_folders_and_tables_are_read_alike(tmp_path):
    write(
        tmp_path,
        {"en-de/en.txt": "one\ntwo\n", "en-de/de.txt": "eins\nzwei", "en-fr.tsv": "one\tun\r\n\r\ntwo\tdeux"},
    )
    write(tmp_path, {".hidden": "x", "README.md": "not a pair"})
    german, french = sentence_pairs.read(tmp_path).pairs
    assert german == ("en", "de", ("one", "two"), ("eins", "zwei"), (0, 1))
    assert french == ("en", "fr", ("one", "two"), ("un", "deux"), (2, 3))


def test_a_sentence_that_a_pair_has_twice_counts_once(tmp_path):
    write(tmp_path, {"a-b.tsv": "one\teins\ntwo\tzwei\none\teine\nuno\teins\nthree\tdrei"})
    assert sentence_pairs.read(tmp_path).pairs[0].sources == ("one", "two", "three")


def test_unicode_line_separators_do_not_shift_the_lines(tmp_path):
    write(tmp_path, {"a-b/a.txt": "one\u2028more\x85still\ntwo\n", "a-b/b.txt": "\ufeffeins\nzwei\n"})
    pair = sentence_pairs.read(tmp_path).pairs[0]
    assert (len(pair.sources), pair.targets) == (2, ("eins", "zwei"))


WRONG = {
    "no pair": ({"notes.txt": "x"}, "no pair of languages"),
    "a name without languages": ({"english.tsv": "a\tb"}, "'english' does not name two languages"),
    "a name with a language twice": ({"en-en.tsv": "a\tb"}, "does not name two languages"),
    "a missing side": ({"en-de/en.txt": "a"}, "has no de.txt"),
    "unequal line counts": (
        {"en-de/en.txt": "a\nb\nc\n", "en-de/de.txt": "a\n"},
        "en.txt has 3 lines and de.txt has 1",
    ),
    "an empty file": ({"en-de/en.txt": "a\n", "en-de/de.txt": "\n"}, "the file is empty"),
    "a line on one side": ({"en-de/en.txt": "a\n\nc", "en-de/de.txt": "x\ny\nz"}, "line 2 is empty"),
    "a bad encoding": ({"en-de.tsv": b"ok\tja\nna\xefve\tx"}, "line 2 is not UTF-8"),
    "a zero byte": ({"en-de.tsv": "ok\tja\nx\0\ty"}, "line 2 holds a zero byte"),
    "UTF-16": ({"en-de.tsv": "ok\tja".encode("utf-16")}, "line 1 is not UTF-8"),
    "a line without a tab": ({"en-de.tsv": "a\tb\nno tab\n"}, "line 2 is not a source and a target"),
    "a line with two tabs": ({"en-de.tsv": "a\tb\tc\n"}, "line 1 is not a source and a target"),
    "a pair twice": ({"en-de.tsv": "a\tb", "de-en.tsv": "b\ta"}, "are also the pair of"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_text_is_refused_with_file_and_line(case, tmp_path):
    files, message = WRONG[case]
    with pytest.raises(DataError) as caught:
        sentence_pairs.read(write(tmp_path, files))
    assert message in caught.value.what
    assert str(tmp_path) in caught.value.where
    assert len(str(caught.value).splitlines()) == 3


def test_a_folder_that_is_not_there_and_links_that_lead_out_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        sentence_pairs.read(tmp_path / "nowhere")
    write(tmp_path, {"secret.tsv": "a\tb", "text/en-de.tsv": "a\tb"})
    (tmp_path / "text" / "en-fr.tsv").symlink_to(tmp_path / "secret.tsv")
    with pytest.raises(DataError, match="leads out of the folder"):
        sentence_pairs.read(tmp_path / "text")


def test_the_same_text_gives_the_same_sub_words():
    texts = [text for pair in pairs() for text in pair.sources]
    first, second = (subwords.learn(texts, 400) for _ in range(2))
    assert first.size == second.size
    assert first.encode(texts) == second.encode(texts)


def test_text_survives_its_sub_words_and_letters_that_were_not_learned_are_bytes():
    learned = subwords.learn([text for pair in pairs() for text in pair.sources], 400)
    texts = ["badogi ру", "日本 ?", "λιste"]
    tokens = learned.encode(texts)
    assert learned.decode(tokens) == texts
    assert min(min(row) for row in tokens) > 3  # nothing is unknown


def test_a_vocabulary_that_does_not_hold_the_letters_is_refused(tmp_path):
    letters = "".join(chr(0x4E00 + index) for index in range(600))
    lines = [f"{letters[i : i + 8]}\t{letters[i + 300 : i + 308]}" for i in range(290)]
    write(tmp_path, {f"en-l{index}.tsv": "\n".join(lines) for index in range(4)})
    with pytest.raises(DataError) as caught:
        parallel_text.build(parallel_text.Config(folder=str(tmp_path), vocabulary=300, **SMALL))
    assert "vocabulary" in caught.value.what
    assert "raise vocabulary" in caught.value.remedy


@each_holdout
def test_no_sentence_is_translated_the_same_way_in_two_splits(holdout):
    made = family(holdout)
    seen = []
    for part in made.data.values():
        for task, start, count in zip(part["task"], part["start"], part["count"], strict=True):
            seen += [(int(task), int(sentence)) for sentence in part["sentence"][start : start + count]]
    assert len(seen) == len(set(seen))
    assert set(made.data) == {"train", "validation", "test"}


def test_pairs_hold_out_whole_pairs_and_sentences_hold_out_none():
    owners = [{int(task) // 2 for task in part["task"]} for part in family("pairs").data.values()]
    assert sum(map(len, owners)) == len(set.union(*owners)) == len(pairs())
    for part in family("sentences").data.values():
        assert set(part["task"].tolist()) == set(range(2 * len(pairs())))


def test_reverse_holds_out_one_direction_and_no_sentence_of_it_is_trained_the_other_way():
    data = family("reverse").data
    trained = set(data["train"]["task"].tolist())
    for name in ("validation", "test"):
        for index, task in enumerate(data[name]["task"].tolist()):
            assert task not in trained
            assert task ^ 1 in trained
            other = data["train"]["task"].tolist().index(task ^ 1)
            held, known = (
                part["sentence"][part["start"][at] : part["start"][at] + part["count"][at]]
                for part, at in ((data[name], index), (data["train"], other))
            )
            assert not set(held.tolist()) & set(known.tolist())


@each_holdout
def test_source_and_target_are_the_lines_of_the_files_and_support_and_query_differ(holdout):
    made, drawn = family(holdout), episodes(holdout, "test")
    for index in range(8):
        task, chosen = int(drawn.facts["task"][index]), drawn.facts["sentence"][index].tolist()
        assert len(set(chosen)) == SMALL["shots"] + SMALL["queries"]
        pair = pairs()[task // 2]
        sides = (pair.targets, pair.sources) if task % 2 else (pair.sources, pair.targets)
        one = jax.tree.map(lambda leaf, index=index: leaf[index], drawn)
        for tokens, side in (
            ((one.support.inputs["source"], one.query.inputs["source"]), sides[0]),
            ((one.support.targets, one.query.targets), sides[1]),
        ):
            assert made.form.spell(np.concatenate(tokens)) == [side[sentence] for sentence in chosen]


def test_groups_are_the_ordered_pairs_of_languages():
    made, drawn = family("sentences"), episodes("sentences", "test")
    assert made.groups.names[:2] == ("l0-m0", "m0-l0")
    np.testing.assert_array_equal(jax.vmap(made.groups.locate)(drawn.facts), drawn.facts["task"])


def test_sub_words_are_learned_from_the_training_part_alone(monkeypatch):
    used: list[str] = []
    learn = subwords.learn
    monkeypatch.setattr(subwords, "learn", lambda texts, *rest: learn(used.extend(texts) or used, *rest))
    made = builders.build_task("parallel_text", holdout="pairs", **SMALL)
    allowed = {
        t for task in made.data["train"]["task"] for side in pairs()[int(task) // 2][2:4] for t in side
    }
    assert set(used) <= allowed
    held = [pairs()[int(task) // 2] for task in made.data["test"]["task"]]
    assert any(set(pair.sources) - set(used) for pair in held)


def test_sentences_that_are_too_long_are_left_out_and_counted(caplog):
    made = builders.build_task("parallel_text", holdout="sentences", longest=7, **SMALL)
    assert "more than 7 sub-words and are left out" in caplog.text
    assert "task.longest=" in caplog.text and "task.vocabulary" in caplog.text
    assert made.problem.spec.input_shape == (8,)
    rows = made.data["train"]["tokens"]
    assert ((rows == 2).sum(axis=-1) == 1).all()  # each row has its end
    assert len(rows) < len(family("sentences").data["train"]["tokens"])


def test_too_few_sentences_for_an_episode_are_refused():
    with pytest.raises(DataError, match="no task of the validation split has the 64 sentences") as caught:
        builders.build_task("parallel_text", shots=32, queries=32)
    assert "fewer shots" in caught.value.remedy
    with pytest.raises(DataError) as caught:
        builders.build_task("parallel_text", shots=300, queries=300, holdout="pairs")
    assert "task.holdout=sentences" in caught.value.remedy


def test_all_shapes_follow_from_the_config_and_not_from_the_text():
    made = family("pairs")
    episode = jax.eval_shape(made.sample, made.data["train"], jax.random.key(0))
    assert episode.support.targets.shape == (3, 25)
    assert episode.query.inputs["source"].shape == (4, 25)
    assert made.problem.spec.vocabulary == made.problem.spec.output_size <= 320


def test_a_sentence_of_the_user_becomes_an_input_and_comes_back():
    made = family("pairs")
    examples = made.form.encode(["badogi kule", "ру"], ["", "λι do"])
    assert made.form.spell(examples.targets) == ["", "λι do"]
    predict = lambda inputs: jax.nn.one_hot(inputs["source"], made.problem.spec.output_size)  # noqa: E731
    said = made.form.decode(predict, jax.tree.map(jnp.asarray, examples.inputs))
    assert made.form.spell(said) == ["badogi kule", "ру"]
    with pytest.raises(ValueError, match="tokens, and 24 are allowed"):
        made.form.encode(["ba do gi ku le " * 20], [""])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": ""}, "folder is empty"),
        ({"folder": "x", "shares": (0.5, 0.6, 0.2)}, "add up to 1"),
        ({"folder": "x", "shares": (0.5, 0.5)}, "three numbers"),
        ({"folder": "x", "holdout": "reverse", "directions": "forward"}, "reverse direction is no task"),
        ({"folder": "x", "holdout": "topics"}, "no topics can be held out"),
        ({"folder": "x", "topics": 3, "whole_meanings": False}, "topics are of whole meanings"),
    ],
)
def test_impossible_configs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        parallel_text.Config(**options)


@each_holdout
def test_another_split_seed_holds_out_other_text_and_the_same_seed_the_same(holdout):
    def held_out(seed: int) -> set:
        config = parallel_text.Config(folder="text", holdout=holdout, split_seed=seed)
        test = sentence_splits.split_tasks(config, [60] * 10)["test"]
        return {(task.pair, task.backward, *task.sentences.tolist()) for task in test}

    assert held_out(1) == held_out(1) != held_out(2)


# Aligned files of several languages

SUBJECTS = {
    "en": ("dog", "boat", "child"),
    "de": ("Hund", "Boot", "Kind"),
    "fr": ("chien", "bateau", "enfant"),
}
SCENES = {
    "en": ("grass", "water", "street"),
    "de": ("Gras", "Wasser", "Straße"),
    "fr": ("herbe", "eau", "rue"),
}
LETTERS = "bcdfghklmnprst"


def write_aligned(root: Path, lines: int = 180, name: str = "train", first: int = 0) -> Path:
    """Write one corpus of three languages, whose sentences have one of three topics and a word of their own."""
    for language in SUBJECTS:
        said = []
        for line in range(first, first + lines):
            subject, scene = SUBJECTS[language][line % 3], SCENES[language][line % 3]
            own = LETTERS[line % 14] + "aeiou"[line % 5] + LETTERS[line // 14 % 14] + language[0]
            said.append(f"{subject} {scene} {own} {subject}")
        content = "\n".join(said) + "\n"
        if language == "fr":
            (root / f"{name}.fr.gz").write_bytes(gzip.compress(content.encode()))
        else:
            (root / f"{name}.{language}").write_text(content, "utf-8")
    return root


@pytest.fixture(scope="module")
def aligned(tmp_path_factory) -> Path:
    return write_aligned(tmp_path_factory.mktemp("aligned"))


def build_aligned(root: Path, **options):
    settings = {"vocabulary": 330, "longest": 24, "shots": 2, "queries": 2} | options
    return parallel_text.build(parallel_text.Config(str(root), **settings))


def list_meanings(root: Path, made) -> dict[str, set[int]]:
    """Return the meanings that each split has, in whatever languages, by the number of the line."""
    pairs = sentence_pairs.read(root).pairs
    found = {}
    for name, part in made.data.items():
        found[name] = {
            pairs[int(task) // 2].lines[sentence]
            for task, start, count in zip(part["task"], part["start"], part["count"], strict=True)
            for sentence in part["sentence"][start : start + count]
        }
    return found


def test_a_file_without_another_language_is_passed_over_with_a_warning(tmp_path, warnings_of_metarun):
    write_aligned(tmp_path, lines=3)
    (tmp_path / "test.en").write_text("alone\n")
    (tmp_path / "notes.txt").write_text("no text of a language\n")
    assert set(aligned_files.list_groups(tmp_path)) == {"train"}
    (warning,) = warnings_of_metarun
    assert warning.endswith("because no file of the same name has another language: test.en")


def test_every_two_languages_of_aligned_files_are_a_pair(aligned):
    corpus = sentence_pairs.read(aligned)
    assert [pair[:2] for pair in corpus.pairs] == [("de", "en"), ("de", "fr"), ("en", "fr")]
    assert corpus.is_aligned and set(corpus.parts) == {"train"}
    assert corpus.pairs[1].sources[4].split()[:2] == ["Boot", "Wasser"]
    assert corpus.pairs[1].targets[4].split()[:2] == ["bateau", "eau"]
    assert [len(pair.sources) for pair in sentence_pairs.read(aligned, most=7).pairs] == [7, 7, 7]


@pytest.mark.parametrize("options", [{"holdout": h} for h in HOLDOUTS] + [{"holdout": "topics", "topics": 3}])
def test_no_meaning_of_a_test_is_trained_in_any_language(aligned, options):
    made = build_aligned(aligned, **options)
    train, validation, test = list_meanings(aligned, made).values()
    assert train and test and not (train & validation or train & test or validation & test)
    assert made.kept["says"][0] == sentence_splits.WHOLE
    tasks = {name: set(part["task"].tolist()) for name, part in made.data.items()}
    if options["holdout"] == "pairs":
        assert not {task // 2 for task in tasks["train"]} & {task // 2 for task in tasks["test"]}
    elif options["holdout"] == "reverse":
        assert not tasks["train"] & tasks["test"] and {task ^ 1 for task in tasks["test"]} <= tasks["train"]
    elif options["holdout"] == "sentences":
        assert tasks["train"] == tasks["test"] == set(range(6))
    else:
        topics = [set(part["topic"].tolist()) for part in made.data.values()]
        assert sum(map(len, topics)) == len(set.union(*topics)) == 3


def test_without_whole_meanings_a_test_sentence_may_be_trained_in_another_language(aligned):
    made = build_aligned(aligned, holdout="sentences", whole_meanings=False)
    found = list_meanings(aligned, made)
    assert found["train"] & found["test"]
    assert made.kept["says"][0] == sentence_splits.BY_PAIR


def test_topics_are_the_clusters_of_words(aligned):
    made = build_aligned(aligned, holdout="sentences", topics=3)
    pair = sentence_pairs.read(aligned).pairs[0]
    part = made.data["train"]
    subjects = []
    for task, start, count in zip(part["task"], part["start"], part["count"], strict=True):
        if task // 2 == 0:
            chosen = part["sentence"][start : start + count]
            subjects.append({pair.targets[sentence].split()[0] for sentence in chosen})
    assert all(len(words) == 1 for words in subjects) and set.union(*subjects) == set(SUBJECTS["en"])
    assert len(made.groups.names) == 3 and any("Hund" in n or "hund" in n for n in made.groups.names)
    facts = jax.jit(lambda part, key: made.sample(part, key).facts)(part, jax.random.key(0))
    assert made.groups.locate(facts) == facts["topic"]


def test_the_names_of_files_may_say_the_split(tmp_path):
    write_aligned(tmp_path, 60)
    write_aligned(tmp_path, 30, "val", 60)
    write_aligned(tmp_path, 30, "test_2016", 80)  # ten lines are those of the validation
    made = build_aligned(tmp_path, holdout="sentences")
    counts = {name: int(part["count"][0]) for name, part in made.data.items()}
    assert counts == {"train": 60, "validation": 20, "test": 30}


def test_the_vocabulary_and_the_length_are_chosen_by_the_text_and_said(aligned):
    made = build_aligned(aligned, vocabulary=None, longest=None, holdout="sentences")
    kept = made.kept
    assert kept["options"] == {
        "folder": str(aligned),
        "vocabulary": made.problem.spec.vocabulary,
        "longest": kept["longest"],
    }
    lengths = (made.data["train"]["tokens"] != 0).sum(axis=-1).max(axis=-1)
    assert lengths.max() == kept["longest"] + 1 == made.problem.spec.input_shape[0]
    everything = sentence_tables.KEPT * len(sentence_pairs.read(aligned).pairs[0].sources) * 0.7
    assert made.data["train"]["count"].min() >= everything - 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.en": "x\ny", "a.de": "x"},
            "aligned files have different numbers of lines: a.de has 1, a.en has 2",
        ),
        ({"a.en": "x", "a.de": "x", "a.de.gz": "x"}, "this text is also a.de"),
        ({"a.en": "x", "a.de": b"\x1f\x8bbroken"}, "truncated or damaged"),
        ({"a.en": "x", "a.de": "x", "de-en.tsv": "a\tb"}, "are also the pair of a subfolder"),
        ({"a.en": "x", "notes.md": "x", "notes.txt": "x"}, "no pair of languages"),
    ],
)
def test_wrong_aligned_files_are_refused(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        sentence_pairs.read(write(tmp_path, files))


def test_an_empty_line_of_an_aligned_file_is_no_sentence_of_its_language(tmp_path):
    corpus = sentence_pairs.read(write(tmp_path, {"a.en": "one\n\nthree", "a.de": "eins\nzwei\ndrei"}))
    assert corpus.pairs == [("de", "en", ("eins", "drei"), ("one", "three"), (0, 2))]


def test_a_pipe_is_no_text(tmp_path):
    os.mkfifo(tmp_path / "en-de.tsv")
    with pytest.raises(DataError, match="not a regular file"):
        sentence_pairs.read(tmp_path)


def test_sentences_have_one_meaning_over_a_line_or_over_a_text_that_they_share():
    groups = [
        Group(("en", "de"), None, (("yes", "no"), ("ja", "nein")), ()),
        Group(("en", "fr"), None, (("no", "dog"), ("non", "chien")), ()),
        Group(("de", "fr"), None, (("Hund",), ("chien",)), ()),
    ]
    numbers = meanings.number_meanings(sentence_pairs.make_corpus(groups))
    assert [row.tolist() for row in numbers] == [[0, 1], [1, 2], [2]]


def draw_corpus(root: Path, seed: int) -> list[dict[str, str]]:
    """Write aligned files whose sentences often come back, some of them empty; return all lines."""
    draws, lines = np.random.default_rng(seed), []
    for name in ("train", "dev", "test"):
        for row in range(40):
            words = {language: f"{language} w{draws.integers(150)}" for language in ("en", "de", "fr")}
            lines.append({k: text if row == 0 or draws.random() > 0.1 else "" for k, text in words.items()})
        for k in ("en", "de", "fr"):
            write(root, {f"{name}.{k}": "".join(f"{line[k]}\n" for line in lines[-40:])})
    return lines


def join_meanings(lines: list[dict[str, str]]) -> dict[tuple[str, str], int]:
    """Return {(language, sentence): meaning} by spreading the smallest number until nothing changes."""
    meaning = {text: place for place, text in enumerate(t for line in lines for t in line.items() if t[1])}
    while True:
        before = dict(meaning)
        for line in lines:
            texts = [text for text in line.items() if text[1]]
            for text in texts:
                meaning[text] = min(meaning[other] for other in texts)
        if meaning == before:
            return meaning


@pytest.mark.parametrize("holdout", HOLDOUTS)
def test_no_meaning_is_in_two_splits_though_lines_are_left_out_that_repeat_a_sentence(tmp_path, holdout):
    for seed in range(5):
        meaning = join_meanings(draw_corpus(tmp_path / str(seed), seed))
        corpus = sentence_pairs.read(tmp_path / str(seed))
        config = parallel_text.Config(str(tmp_path), holdout=holdout, shares=(0.5, 0.2, 0.3))
        tasks, owners = sentence_splits.split_corpus(config, corpus).tasks, {}
        for split, directions in tasks.items():
            for task in directions:
                pair = corpus.pairs[task.pair]
                for place in task.sentences:
                    for text in ((pair.source, pair.sources[place]), (pair.target, pair.targets[place])):
                        assert owners.setdefault(meaning[text], split) == split
        assert set(owners.values()) == {"train", "validation", "test"}


# What a run keeps


@pytest.mark.parametrize("options", [{}, {"topics": 3, "holdout": "topics"}])
def test_what_is_kept_gives_the_same_family_and_its_outline_without_the_text(aligned, options):
    made = build_aligned(aligned, **options)
    kept = json.loads(json.dumps(made.kept))
    settings = {"vocabulary": 330, "longest": 24, "shots": 2, "queries": 2} | options
    config = parallel_text.Config(str(aligned), **settings)
    again = parallel_text.build(config, kept)
    trees.assert_equal(again.data, made.data)
    moved = dataclasses.replace(config, folder="/nowhere")
    outline = parallel_text.outline(moved, kept)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), outline.data) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), made.data
    )
    assert (outline.kept, outline.groups.names) == (made.kept, made.groups.names)
    assert outline.problem.spec == made.problem.spec
    tokens = made.form.encode(["dog grass"], ["Hund Gras"]).targets
    assert outline.form.spell(tokens) == ["Hund Gras"]


def test_other_text_is_refused_for_episodes_and_said_for_predictions(tmp_path, caplog):
    made = build_aligned(write_aligned(tmp_path, 60))
    config = parallel_text.Config(str(tmp_path), vocabulary=330, longest=24, shots=2, queries=2)
    text = (tmp_path / "train.en").read_text()
    (tmp_path / "train.en").write_text(text.replace("dog", "cat", 1))
    with pytest.raises(DataError, match="not those that the run was trained on"):
        parallel_text.build(config, made.kept)
    parallel_text.outline(config, made.kept)
    assert "has changed since the training" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"vocabulary": "?"},
        {"vocabulary": "AAAA"},
        {"longest": "24"},
        {"longest": 200_000},
        {"files": ["train.en", "/dev/zero"]},
        {"files": ["../train.en"]},
        {"shapes": {"train": {}}},
        {"topics": 5},
    ],
)
def test_what_is_kept_and_damaged_is_refused(aligned, change):
    kept = build_aligned_once(aligned) | change
    with pytest.raises(CheckpointError, match="what the run has kept of its text is damaged"):
        text_record.read(kept)
    missing = {name: value for name, value in kept.items() if name not in change}
    with pytest.raises(CheckpointError):
        text_record.read(missing)


def test_predictions_need_no_folder_that_can_be_looked_into(aligned, tmp_path, caplog):
    kept = build_aligned_once(aligned)
    nowhere = str(tmp_path / ("x" * 300))  # the system refuses the name, as it refuses a colleague's folder
    config = parallel_text.Config(nowhere, vocabulary=330, longest=24, shots=2, queries=2)
    assert parallel_text.outline(config, kept).kept == kept
    assert not caplog.messages


def test_kept_topics_that_do_not_fit_the_text_are_refused(aligned):
    corpus = sentence_pairs.read(aligned)
    config_of_topics = parallel_text.Config(str(aligned), topics=3, holdout="topics")
    known = sentence_splits.split_corpus(config_of_topics, corpus).topics
    cut = known._replace(labels=known.labels[:-1])
    with pytest.raises(CheckpointError, match="topics of 179 sentences"):
        sentence_splits.split_corpus(config_of_topics, corpus, cut)


def test_a_dry_run_says_the_splits(aligned):
    task = {"name": "parallel_text", "folder": str(aligned)}
    rest = {"model": {"name": "seq2seq"}, "algorithm": {"name": "maml"}, "training": {"steps": 1}}
    made = build_aligned(aligned)
    said = assembly.describe_splits(config.load({"task": task, **rest}), made)
    assert said == made.kept["says"] and said[0] == sentence_splits.WHOLE


@functools.cache
def build_aligned_once(root: Path):
    return build_aligned(root).kept


# The learner


def test_byte_pairs_are_another_vocabulary_that_spells_the_same(aligned):
    texts = list(sentence_pairs.read(aligned).pairs[0].sources)
    learned = {kind: subwords.learn(texts, 320, kind) for kind in ("unigram", "bpe")}
    assert all(words.decode(words.encode(texts)) == texts for words in learned.values())
    assert learned["unigram"].encode(texts) != learned["bpe"].encode(texts)
    assert subwords.learn(texts, 8000, "bpe").size < 8000  # no more than the text has
    made = build_aligned(aligned, subwords="bpe", sentences=90)
    assert made.problem.spec.vocabulary == 330


def test_label_smoothing_changes_what_is_trained_and_not_the_loss_that_is_reported():
    plain, smooth = (family_of_loss(smoothing) for smoothing in (0.0, 0.1))
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((2, 3, 5)).astype(np.float32)
    targets = np.array([[3, 2, 0], [4, 4, 2]], np.int32)
    given = jnp.asarray(logits), jnp.asarray(targets)
    kept = targets != 0
    log = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = -(0.9 * np.take_along_axis(log, targets[..., None], -1)[..., 0] + 0.1 * log.mean(axis=-1))[
        kept
    ].mean()
    np.testing.assert_allclose(smooth.loss(*given), expected, rtol=1e-5)
    assert smooth.training_metrics(*given)["loss"] == plain.loss(*given)
    made = build_with(label_smoothing=0.1)
    assert made.problem.objective.loss(*given) == smooth.loss(*given)


def family_of_loss(smoothing: float):
    return _sentences.make_objective(lambda tokens: [""] * len(tokens), "13a", smoothing)


def build_with(**options):
    return builders.build_task("parallel_text", **SMALL, **options)


def test_options_of_the_training_leave_the_episodes_as_they_are_and_the_text_unread(monkeypatch):
    config = builders.example_config("parallel_text")
    plain = assembly.list_changed_options(config)
    trained = Selection("parallel_text", dataclasses.replace(config, label_smoothing=0.1, **SMALL))
    evaluated = assembly.select_evaluated(trained, Evaluation())
    assert assembly.list_changed_options(dataclasses.replace(evaluated.config, shots=16, queries=16)) == plain
    before = family("sentences")
    monkeypatch.setattr(sentence_pairs, "read", None)
    built = assembly.build_evaluated(trained, evaluated, before.kept)
    assert built.problem.spec == before.problem.spec
    assert "longest" not in plain  # 24 was the default before
    assert assembly.list_changed_options(dataclasses.replace(config, longest=25))["longest"] == 25


def test_a_long_sentence_is_divided_at_its_best_places():
    fits = lambda text: len(text) <= 12  # noqa: E731
    divide = _sentence_parts.divide
    assert divide("short", fits) == ["short"]
    assert divide("One, two. Three, four, five.", fits) == ["One, two.", "Three, four,", "five."]
    assert divide("one two three four", fits) == ["one two", "three four"]
    assert divide("3.14 is less than 3.15", fits) == ["3.14 is less", "than 3.15"]
    assert divide("abcdefghijklmnopqrst", fits) == ["abcdefghij", "klmnopqrst"]
    assert (
        "".join(divide("一二三四五六七。八九十一二三四五六七八", fits))
        == "一二三四五六七。八九十一二三四五六七八"
    )
    made = family("sentences")
    parts = made.form.divide("ba do gi ku le " * 20)
    assert len(parts) > 1 and made.form.encode(parts, [""] * len(parts))


def test_the_baseline_copies_the_target_of_the_nearest_support_sentence():
    support = np.array([[5, 6, 2, 0], [7, 8, 9, 2], [5, 5, 2, 0]])
    queries = np.array([[8, 9, 2, 0], [5, 2, 0, 0], [6, 5, 2, 0], [30, 2, 0, 0]])
    assert _copied_targets.find_nearest(queries, support).tolist() == [1, 2, 0, 0]
    made, drawn = family("sentences"), jax.tree.map(np.asarray, episodes("sentences", "test", 8))
    same = drawn._replace(query=drawn.support)
    (copied,) = made.baselines({}, same).values()
    np.testing.assert_allclose(copied["bleu"], 100)
    (found,) = made.baselines({}, drawn).values()
    assert found.keys() == {"exact_match", "bleu", "chrf"} and (found["bleu"] < 50).all()
