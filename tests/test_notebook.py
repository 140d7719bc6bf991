"""docs/notebook.ipynb, as somebody would run it in an empty folder. A minute: `scripts/test.sh --reproduction`."""

import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
LARGEST = 300_000  # bytes, pictures included
ABSOLUTE = re.compile(r"(?<![\w<:/.])/\w+/\w+")  # the beginning of a path from the root; no URL, tag or unit


def list_kinds(cell: dict[str, Any]) -> list[set[str]]:
    """Return the kinds of each output of a cell: its type and its forms, such as a picture."""
    outputs = cell.get("outputs", [])
    return [{output["output_type"], *output.get("data", {})} for output in outputs]


def list_texts(cell: dict[str, Any]) -> list[str]:
    """Return the texts among the outputs of a cell; pictures are none."""
    forms = [form for output in cell.get("outputs", []) for form in (output.get("data", {}), output)]
    return [text for form in forms for kind, text in form.items() if kind.startswith("text")]


def test_the_notebook_is_small_and_has_its_outputs():
    import nbformat

    assert NOTEBOOK.stat().st_size < LARGEST
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and all(cell.execution_count for cell in cells)
    kinds = [kind for cell in cells for kind in list_kinds(cell)]
    assert not any("error" in kind or "stream" in kind for kind in kinds[:-2])
    assert (
        sum("image/png" in kind for kind in kinds) >= 4
        and sum("text/markdown" in kind for kind in kinds) >= 3
    )
    texts = [cell.source for cell in notebook.cells] + [text for cell in cells for text in list_texts(cell)]
    assert not [place for text in texts for place in ABSOLUTE.findall(text)]  # of the machine that ran it


@pytest.mark.reproduction
def test_the_notebook_runs_in_an_empty_folder_and_gives_outputs_of_the_same_kinds(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before = [list_kinds(cell) for cell in notebook.cells]
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    assert [list_kinds(cell) for cell in notebook.cells] == before
