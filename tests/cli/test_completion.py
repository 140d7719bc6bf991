"""What bash completes, asked as bash asks: by environment variables."""

import os
import subprocess
import sys

import pytest
import typer

from helpers.finished_runs import make_run
from metarun.cli import application, completion

CODE = "import sys; sys.argv[0] = 'metarun'; from metarun import cli; cli.main()"


def complete(folder, *words: str) -> list[str]:
    """Return what a line completes to whose last word is being typed."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={
            **os.environ,
            "_METARUN_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(["metarun", *words]),
            "COMP_CWORD": str(len(words)),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def folder(tmp_path):
    """A folder with a config and a finished run."""
    import numpy as np

    (tmp_path / "mine.yaml").write_text("model: {name: mlp}\n")
    make_run(tmp_path / "runs" / "mine" / "20260101-000000-abcd", np.arange(30.0))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        (["train", "mine"], ["mine.yaml"]),
        (["train", "sinusoid/ani"], ["sinusoid/anil"]),
        (
            ["train", "sinusoid/maml", "training.optimizer.b"],
            ["training.optimizer.b1=", "training.optimizer.b2="],
        ),
        (["train", "mine.yaml", "training."], []),
        (["eval", "runs/"], ["runs/mine/20260101-000000-abcd"]),
        (["eval", "latest", "evaluation.sh"], ["evaluation.shots="]),
        (["data", "fetch", "omn"], ["omniglot"]),
        (["list", "fom"], ["fomaml"]),
    ],
)
def test_bash_completes(folder, words, expected):
    assert complete(folder, *words) == expected


def test_what_goes_wrong_completes_to_nothing():
    @completion.quietly
    def broken(context, incomplete):
        raise KeyError("nothing must be printed between the words of a line")

    context = typer.Context(typer.main.get_command(application))
    assert broken(context, "any") == []


def test_the_keys_of_stages_go_by_their_names():
    plain = {"stages": [{"name": "start", "model": {"hidden": [8]}}], "seed": 0}
    assert list(completion.list_keys(plain)) == ["stages.start.name", "stages.start.model.hidden", "seed"]
