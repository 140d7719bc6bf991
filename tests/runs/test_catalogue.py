"""Which folders are runs, and which run somebody means by a name."""

from pathlib import Path

import pytest

from metarun import errors
from metarun.runs.catalogue import list_folders, resolve

OLD, NEW, OTHER = "small/20260101-000000-aaaa", "small/20260102-000000-bbbb", "big/20250101-000000-cccc"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """The folder runs/ of the working folder, with three runs and one that was given a name."""
    monkeypatch.chdir(tmp_path)
    for name in (OLD, NEW, OTHER, "table/maml"):
        make_folder(Path("runs") / name)
    return Path("runs")


def make_folder(run: Path, *names: str) -> Path:
    """Make a folder that looks like a run, or one with these files."""
    run.mkdir(parents=True)
    for name in names or ("config.yaml", "lock"):
        (run / name).touch()
    return run


@pytest.mark.parametrize(
    ("name", "run"),
    [
        (f"runs/{OLD}", OLD),
        (OLD, OLD),
        ("20260101-000000-aaaa", OLD),
        ("20260101", OLD),
        ("aaaa", OLD),
        ("small/20260101", OLD),
        ("runs/small/20260101", OLD),
        ("./runs/small/2026010", None),
        ("runs/small", NEW),
        ("small", NEW),
        ("small/latest", NEW),
        ("sma", None),
        ("big", OTHER),
        ("bi", OTHER),
        ("maml", "table/maml"),
        ("table/m", "table/maml"),
        ("latest", "table/maml"),  # its config is of today
        (f"{OLD}/checkpoints/maml/24", f"{OLD}/checkpoints/maml/24"),
        ("aaaa/checkpoints/maml/24", f"{OLD}/checkpoints/maml/24"),
    ],
)
def test_a_run_is_found_by_path_name_and_unique_beginning(root, name, run):
    if run is None:
        with pytest.raises(errors.UsageError, match="any of 2 runs") as raised:
            resolve(name)
        assert raised.value.where == f"runs/{OLD}, runs/{NEW}"
    else:
        assert resolve(name) == root / run


def test_a_path_from_the_root_of_the_disk_is_found_too(root):
    assert resolve(root.absolute() / "small").resolve() == (root / NEW).resolve()


@pytest.mark.parametrize(
    "name", ["nothing", ".", "runs", "runs/none", "/", "", "small/latest/latest", "../x", "*"]
)
def test_what_is_no_run_is_refused_as_always(root, name):
    with pytest.raises(errors.CheckpointError, match="no run here"):
        resolve(name)


def test_a_name_that_nearly_fits_is_suggested(root):
    with pytest.raises(errors.CheckpointError) as raised:
        resolve("smull")
    assert "small" in raised.value.remedy


def test_a_folder_of_several_runs_means_none_of_them_if_the_newest_does_not_count(root):
    with pytest.raises(errors.UsageError):
        resolve("small", newest=False)
    assert resolve("big", newest=False) == root / OTHER
    assert resolve("latest", newest=False) == root / "table/maml"


def test_foreign_folders_are_listed_with_the_reason_and_runs_are_not_entered(root):
    make_folder(root / OLD / "checkpoints/config", "config.yaml", "lock")
    make_folder(root / "project/src", "config.yaml", "main.py")
    make_folder(root / "early", "lock", "metrics.jsonl")
    (root / "empty").mkdir()
    (root / ".hidden").mkdir()
    listed = {folder.path.relative_to(root).as_posix(): folder.problem for folder in list_folders(root)}
    assert listed == {
        **dict.fromkeys((OLD, NEW, OTHER, "table/maml", "early")),
        "project/src": "there is no run here",
        "empty": "it is empty",
    }


def test_a_link_that_leads_round_in_a_circle_is_not_followed(root):
    (root / "circle").symlink_to(root.absolute())
    (root / "alias").symlink_to((root / OLD).absolute())
    assert sum(folder.problem is None for folder in list_folders(root)) == 5  # with the alias
