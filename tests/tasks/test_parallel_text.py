"""The user's own parallel text: what is read, what is refused in three lines, and what is held out."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import builders
from metarun.data import sentence_pairs, subwords
from metarun.errors import DataError
from metarun.tasks import parallel_text

SMALL = {"shots": 3, "queries": 4}
HOLDOUTS = ("pairs", "reverse", "sentences")
each_holdout = pytest.mark.parametrize("holdout", HOLDOUTS)


@functools.cache
def family(holdout: str):
    return builders.build_task("parallel_text", holdout=holdout, **SMALL)


@functools.cache
def pairs() -> list[sentence_pairs.Pair]:
    return sentence_pairs.read(Path(builders.example_config("parallel_text").folder))


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
    german, french = sentence_pairs.read(tmp_path)
    assert german == ("en", "de", ("one", "two"), ("eins", "zwei"))
    assert french == ("en", "fr", ("one", "two"), ("un", "deux"))


def test_a_sentence_that_a_pair_has_twice_counts_once(tmp_path):
    write(tmp_path, {"a-b.tsv": "one\teins\ntwo\tzwei\none\teine\nuno\teins\nthree\tdrei"})
    assert sentence_pairs.read(tmp_path)[0].sources == ("one", "two", "three")


def test_unicode_line_separators_do_not_shift_the_lines(tmp_path):
    write(tmp_path, {"a-b/a.txt": "one\u2028more\x85still\ntwo\n", "a-b/b.txt": "\ufeffeins\nzwei\n"})
    pair = sentence_pairs.read(tmp_path)[0]
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
    monkeypatch.setattr(subwords, "learn", lambda texts, size: learn(used.extend(texts) or used, size))
    made = builders.build_task("parallel_text", holdout="pairs", **SMALL)
    allowed = {t for task in made.data["train"]["task"] for side in pairs()[int(task) // 2][2:] for t in side}
    assert set(used) <= allowed
    held = [pairs()[int(task) // 2] for task in made.data["test"]["task"]]
    assert any(set(pair.sources) - set(used) for pair in held)


def test_sentences_that_are_too_long_are_left_out_and_counted(caplog):
    made = builders.build_task("parallel_text", holdout="sentences", longest=7, **SMALL)
    assert "more than 7 sub-words and are left out" in caplog.text
    assert made.problem.spec.input_shape == (8,)
    rows = made.data["train"]["tokens"]
    assert ((rows == 2).sum(axis=-1) == 1).all()  # each row has its end
    assert len(rows) < len(family("sentences").data["train"]["tokens"])


def test_too_few_sentences_for_an_episode_are_refused():
    with pytest.raises(DataError, match="no task of the validation split has the 64 sentences") as caught:
        builders.build_task("parallel_text", shots=32, queries=32)
    assert "fewer shots" in caught.value.remedy


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
    ],
)
def test_impossible_configs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        parallel_text.Config(**options)


@each_holdout
def test_another_split_seed_holds_out_other_text_and_the_same_seed_the_same(holdout):
    def held_out(seed: int) -> set:
        config = parallel_text.Config(folder="text", holdout=holdout, split_seed=seed)
        test = parallel_text.split_tasks(config, [60] * 10)["test"]
        return {(task.pair, task.backward, *task.sentences.tolist()) for task in test}

    assert held_out(1) == held_out(1) != held_out(2)
