"""scripts/check_style.py: comments that the formatter bends, and sentences that begin with "Of"."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_style.py"

BENT = """
rate: int | None = (
    None  # steps; null: as many as there are
)
"""
BENT_TYPE = """
rate: Annotated[
    int, AtLeast(1)  # steps
] = 3
"""
BEHIND = """
if any(
    word in name for word in words
):  # families and whole runs
    pass
"""
OF = '''
def count():
    """Return how many there are.

    Of a run with replicas these are all.
    """
    # The rest is easy. Of
    # no stage is it known.
'''
FINE = '''
"""Count of all. Offset and "of" are fine."""

TABLE = [
    "one",  # a line of its own, by the comma at its end
    "two",
]
# A comment above.
total = sum(
    # a comment on its own line
    TABLE
)
call(  # before anything else
    1
)
text = (
    "first"
    "second"  # belongs to this line
)
ROWS = [
    1, 2,
    3, 4,
]  # fmt: skip
where = "(\\n  None  # in a string\\n)"
'''


def check(*files: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, files)], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("source", "lines"),
    [(BENT, [3]), (BENT_TYPE, [3]), (BEHIND, [4]), (OF, [5, 7]), (FINE, [])],
    ids=["value", "type", "behind", "of", "fine"],
)
def test_every_place_is_named_with_its_line(tmp_path, source, lines):
    file = tmp_path / "module.py"
    file.write_text(source)
    checked = check(file)
    assert checked.stderr == ""
    assert [row.split(": ")[0] for row in checked.stdout.splitlines()] == [f"{file}:{line}" for line in lines]
    assert checked.returncode == (1 if lines else 0)


def test_the_comments_of_a_config_are_read_and_its_values_are_not(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("# Purpose: none. Of four runs the best.\nname: Of all\n# Of course.\n")
    assert [row.split(": ")[0] for row in check(file).stdout.splitlines()] == [f"{file}:1", f"{file}:3"]


@pytest.mark.slow
def test_several_files_are_checked_at_once_and_the_repository_is_without_findings(tmp_path):
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(FINE)
    bad.write_text(BENT)
    assert check(good, bad).stdout.startswith(f"{bad}:3: ")
    whole = check()
    assert (whole.returncode, whole.stdout) == (0, "")
