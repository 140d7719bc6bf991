"""A cell of a table is a number as it is written in a table, and not as Python's own source would have it."""

import pytest

from metarun.data import examples
from metarun.errors import DataError


@pytest.mark.parametrize("cell", ["3_4", '"3\n4"', '"3" "4"', "0x22", "3 4", ""])
def test_what_is_no_number_is_never_read_as_another_one(tmp_path, cell):
    path = tmp_path / "table.csv"
    path.write_text(f"1,a\n{cell},b\n")
    with pytest.raises(DataError, match="line 2"):
        examples.read_table(path, 1, labelled=True)
