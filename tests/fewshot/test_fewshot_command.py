"""`metarun fewshot`: from folders of pictures to answers, lists and a page."""

import json
import os
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import metarun
from helpers import drawings, photographs
from metarun import backbones
from metarun.data import labels_file

pytestmark = pytest.mark.usefixtures("own_place", "shared_programs")

NUMBER, TEXT, SHARE = {"type": "number"}, {"type": "string"}, {"type": "number", "minimum": 0, "maximum": 1}
COUNTED = {
    "type": ["object", "null"],
    "required": ["right", "asked", "accuracy", "interval"],
    "properties": {"accuracy": SHARE, "interval": {"type": "array", "items": SHARE, "minItems": 2}},
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["features", "method", "classes", "judgement", "predictions", "next", "skipped", "notes"],
    "properties": {
        "features": {"type": "object", "required": ["kind", "source", "dimensions"]},
        "method": {"enum": ["centroid", "logistic", "learner"]},
        "classes": {"type": "array", "items": {"type": "object", "required": ["class", "shots"]}},
        "judgement": {
            "type": ["object", "null"],
            "required": ["left_out", "accuracy", "temperature", "calibrated", "unknown", "confusions"],
            "properties": {"accuracy": COUNTED, "temperature": NUMBER, "calibrated": {"type": "boolean"}},
        },
        "predictions": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    "file",
                    "class",
                    "probability",
                    "best",
                    "distance",
                    "unknown",
                    "copy_of",
                    "truth",
                ],
                "properties": {"file": TEXT, "class": TEXT, "probability": SHARE, "distance": NUMBER},
            },
        },
        "expected_accuracy": {"type": ["number", "null"]},
        "accuracy": COUNTED,
        "strangers": COUNTED,
        "next": {"type": "array", "items": TEXT},
        "skipped": {"type": "array", "items": {"type": "object", "required": ["file", "fault"]}},
        "notes": {"type": "array", "items": TEXT},
    },
}


@pytest.fixture
def backbone(monkeypatch, tmp_path) -> photographs.MeanColours:
    """A network in place of every backbone, and empty caches."""
    made = photographs.MeanColours()
    monkeypatch.setattr(backbones, "open_backbone", lambda weights, **_: made)
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METARUN_DATA", str(tmp_path / "data"))
    return made


@pytest.fixture
def photos(tmp_path) -> Path:
    """support/ with 4, 1 and 3 pictures, query/ with 4 of each class in folders, and 2 of another class."""
    photographs.write_classes(tmp_path / "support", {"apple": 4, "leaf": 1, "sky": 3})
    photographs.write_classes(tmp_path / "query", {"apple": 4, "leaf": 4, "sky": 4}, first=10)
    photographs.write_classes(tmp_path / "strange", {"sand": 2})
    return tmp_path


@pytest.mark.parametrize("method", ["centroid", "logistic"])
def test_pictures_are_named_after_few_examples_and_strange_ones_are_unknown(
    backbone, photos, metarun_, method
):
    said = metarun_(
        *("fewshot", "--support", "support", "--query", "query", "--query", "strange"),
        *("--method", method, "--truth", write_truth(photos), "--json"),
    )
    assert said.code == 0, said.err
    answered = json.loads(said.out[0])
    jsonschema.validate(answered, SCHEMA)
    known = [one for one in answered["predictions"] if one["truth"] != "sand"]
    assert all(one["class"] == one["truth"] for one in known) and len(known) == 12
    assert [one["unknown"] for one in answered["predictions"]] == [False] * 12 + [True] * 2
    assert answered["accuracy"]["right"] == answered["accuracy"]["asked"] == 12
    assert answered["strangers"]["right"] == answered["strangers"]["asked"] == 2
    assert answered["judgement"]["accuracy"]["asked"] == 7  # the one leaf is never left out
    assert [one["shots"] for one in answered["classes"]] == [4, 1, 3]
    assert answered["features"]["kind"] == "random"
    assert set(answered["next"][:2]) <= {"strange/sand/0.png", "strange/sand/1.png"}


def write_truth(folder: Path) -> Path:
    """Write the true classes of all queries."""
    files = [*folder.glob("query/*/*.png"), *folder.glob("strange/*/*.png")]
    rows = "".join(f"{file.relative_to(folder)},{file.parent.name}\n" for file in files)
    (folder / "truth.csv").write_text(f"file,label\n{rows}")
    return folder / "truth.csv"


def test_without_weights_it_says_what_to_get_and_where_to_put_it(backbone, photos, metarun_):
    said = metarun_("fewshot", "--support", "support", "query")
    (note,) = [line for line in said.err if line.startswith("note: ")]
    assert "dinov2-small" in note and str(photos / "data" / "backbones") in note
    assert "mean colours" in said.out[-1] and "3 classes, 1 to 4 shots" in said.out[-1]
    (photos / "data" / "backbones").mkdir(parents=True)
    (photos / "data" / "backbones" / "good.safetensors").write_bytes(b"")
    assert metarun_("fewshot", "--support", "support", "query").err == []


def test_a_second_call_computes_features_of_new_pictures_alone(backbone, photos, metarun_):
    command = ["fewshot", "--support", "support", "query"]
    metarun_(*command)
    assert backbone.seen >= 20
    backbone.seen = 0
    first = metarun_(*command).out
    assert backbone.seen == 0 and first == metarun_(*command).out
    photographs.write_photograph(photos / "support" / "leaf" / "new.png", "leaf", 99)
    assert metarun_(*command).code == 0 and backbone.seen == 1


def test_a_list_grows_by_the_labels_that_somebody_writes(backbone, photos, metarun_):
    command = ["fewshot", "query", "--labels", "labels.csv", "--next", "3", "--json"]
    started = json.loads(metarun_(*command).out[0])  # nothing is labelled yet
    assert started["predictions"] == [] and started["judgement"] is None
    rows = (photos / "labels.csv").read_text().splitlines()
    assert rows[0] == "file,label,guess" and [row.split(",")[0] for row in rows[1:]] == started["next"]
    assert {Path(file).parent.name for file in started["next"]} == {"apple", "leaf", "sky"}
    label_all(photos / "labels.csv")
    second = json.loads(metarun_(*command).out[0])
    assert [one["shots"] for one in second["classes"]] == [1, 1, 1] and len(second["predictions"]) == 9
    assert "3 queries left out: labelled already" in second["notes"]
    lines = (photos / "labels.csv").read_text().splitlines()
    assert lines[1:4] == label_all(photos / "labels.csv")[1:4] and len(lines) == 7
    third = json.loads(metarun_(*command).out[0])
    assert sum(one["shots"] for one in third["classes"]) == 6
    assert third["judgement"]["accuracy"]["right"] == third["judgement"]["accuracy"]["asked"]


def label_all(path: Path) -> list[str]:
    """Write the class of each picture into a list as somebody would, and return its lines."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    lines = [",".join([row[0], Path(row[0]).parent.name, *row[2:]]) for row in rows[1:]]
    path.write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    return [",".join(rows[0]), *lines]


def test_own_columns_and_the_separator_of_a_list_stay(backbone, photos, metarun_):
    list_ = photos / "mine.csv"
    list_.write_text(
        "File;Label;by\nquery/sky/10.png;sky;me\nquery/leaf/10.png;;\nquery/apple/10.png;apple;me\n"
        "query/leaf/11.png;;I ask Ann\n"
    )
    assert metarun_("fewshot", "query", "--labels", list_, "--next", "1").code == 0
    lines = list_.read_text().splitlines()
    assert lines[0] == "file;label;by" and lines[1:4] == [
        "query/sky/10.png;sky;me",
        "query/apple/10.png;apple;me",
        "query/leaf/11.png;;I ask Ann",
    ]
    assert len(lines) <= 5 and all(line.endswith(";;") for line in lines[4:])


def test_broken_files_are_named_and_the_others_answered(backbone, photos, metarun_):
    (photos / "query" / "sky" / "10.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    (photos / "support" / "apple" / "0.png").write_bytes(b"")
    answered = json.loads(metarun_("fewshot", "--support", "support", "query", "--json").out[0])
    assert {one["file"] for one in answered["skipped"]} == {"query/sky/10.png", "support/apple/0.png"}
    assert len(answered["predictions"]) == 11 and answered["classes"][0]["shots"] == 3
    said = metarun_("fewshot", "--support", "support", "query")
    assert said.out[-1].startswith("skipped: ") and "10.png" in said.out[-1]


def test_copies_between_support_and_queries_are_said_and_not_counted(backbone, photos, metarun_):
    shutil.copy(photos / "support" / "sky" / "0.png", photos / "query" / "sky" / "copy.png")
    shutil.copy(photos / "support" / "sky" / "1.png", photos / "support" / "apple" / "odd.png")
    answered = json.loads(metarun_("fewshot", "--support", "support", "query", "--json").out[0])
    (copied,) = [one for one in answered["predictions"] if one["copy_of"]]
    assert copied["file"] == "query/sky/copy.png" and copied["copy_of"] == "support/sky/0.png"
    assert answered["accuracy"]["asked"] == 12 and copied["file"] not in answered["next"]
    assert any("1 query is a copy" in note for note in answered["notes"])
    assert any("two labels" in note and "odd.png" in note for note in answered["notes"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["query"], 4, "no pictures with a label"),
        (["--support", "gone", "query"], 4, "no such file or folder"),
        (["--support", "one", "query"], 4, "only one class, sky"),
        (["--support", "query/sky", "query"], 4, "no class folders"),
        (["--support", "support", "gone"], 4, "no such file or folder"),
        (["--support", "support", "query", "--method", "magic"], 2, "no method magic"),
        (["--support", "support", "query", "--method", "learner"], 2, "comes from a run"),
        (["--support", "support", "query", "--model", "vit_s14", "--run", "r"], 2, "one place"),
        (["--support", "support", "query", "--html", "support/sky/0.png"], 2, "no report"),
        (["--support", "torn.csv", "query"], 4, "two labels"),
        (["--support", "bare.csv", "query"], 4, "names no columns"),
    ],
)
def test_what_cannot_be_done_is_three_plain_lines(backbone, photos, metarun_, arguments, code, words):
    shutil.copytree(photos / "support" / "sky", photos / "one" / "sky")
    (photos / "torn.csv").write_text("file,label\nquery/sky/10.png,sky\nquery/sky/10.png,leaf\n")
    (photos / "bare.csv").write_text("query/sky/10.png,sky\n")
    said = metarun_("fewshot", *arguments)
    assert said.code == code and len(said.err) == 3 and said.out == [], said
    text = " ".join(said.err)
    assert "has the labels sky and leaf" in text if words == "two labels" else words in text


def test_the_page_holds_its_pictures_and_escapes_every_name(backbone, photos, metarun_):
    name = os.fsdecode(b"<script>alert(1)</script>\xff.png".replace(b"/", b"_"))
    photographs.write_photograph(photos / "query" / "sky" / name, "sky", 7)
    (photos / "support" / "apple").rename(photos / "support" / "<b>apple")
    said = metarun_("fewshot", "--support", "support", "query", "--html", "page.html", "--csv", "answers.csv")
    assert said.code == 0, said.err
    page = (photos / "page.html").read_text("utf-8")
    assert "<script" not in page and "<b>apple" not in page and "&lt;b&gt;apple" in page
    assert page.count('src="data:image/jpeg;base64,') >= 8 + 13 and "http" not in page.replace(
        "http-equiv", ""
    )
    assert len((photos / "answers.csv").read_text().splitlines()) == 14
    again = metarun_("fewshot", "--support", "support", "query", "--html", "page.html")
    assert again.code == 0  # it replaces its own page


def test_a_thousand_classes_are_answered(backbone, tmp_path, metarun_):
    rows = []
    for number in range(1000):
        red, green, blue = 25 * (number % 10), 25 * (number // 10 % 10), 25 * (number // 100)
        write_plain(tmp_path / f"{number}.ppm", red, green, blue)
        rows.append(f"{number}.ppm,class {number}")
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    write_plain(tmp_path / "query.ppm", 26, 51, 99)
    said = metarun_("fewshot", "--support", tmp_path / "labels.csv", tmp_path / "query.ppm", "--json")
    answered = json.loads(said.out[0])
    assert len(answered["classes"]) == 1000 and answered["predictions"][0]["class"] == "class 421"
    assert answered["judgement"]["calibrated"] is False and answered["judgement"]["unknown"] is None


def write_plain(path: Path, red: int, green: int, blue: int) -> None:
    """Write a picture of one colour, one pixel large."""
    path.write_bytes(b"P6 1 1 255 " + bytes([red, green, blue]))


@pytest.mark.slow
def test_the_learner_of_a_run_answers_as_predict_does(picture_run, tmp_path, metarun_, monkeypatch):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    drawings.write_classes(tmp_path, [2, 3, 2, 1])
    for label in range(4):
        ink = drawings.make_split()["images"][label, 9]
        drawings.write_picture(tmp_path / "query" / f"class {label}" / "9.png", ink)
    said = metarun_("fewshot", "--run", picture_run, "--support", "support", "query", "--json")
    assert said.code == 0, said.err
    answered = json.loads(said.out[0])
    jsonschema.validate(answered, SCHEMA)
    predicted = metarun_("predict", picture_run, "--support", "support", "--query", "query", "--json")
    plain = json.loads(predicted.out[0])["predictions"]
    assert answered["method"] == "learner" and answered["judgement"]["left_out"] == "one by one"
    heat = answered["judgement"]["temperature"]
    for one, other in zip(answered["predictions"], plain, strict=True):
        assert one["class"] == other["class"]
        powers = np.array(list(other["probabilities"].values())) ** (1 / heat)
        assert one["probability"] == pytest.approx(powers.max() / powers.sum(), abs=1e-4)
    centroid = metarun.classify("support", "query", run=picture_run, method="centroid")
    assert len(centroid["predictions"]) == 4 and "few-shot answers" in repr(centroid)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "a,b\n", 'file,label\n"x,y\n', "file,label\n,cat\n", "file,label\na\0,cat\n"]
)
def test_a_broken_list_is_refused(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(metarun.MetarunError):
        labels_file.read_labels(tmp_path / "labels.csv")
