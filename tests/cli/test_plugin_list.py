"""`metarun list`: every plug-in with its options, and the page of all algorithms in docs/."""

from pathlib import Path

import pytest

from helpers.commands import assert_three_lines
from metarun import plugins
from metarun.cli import plugin_list, text_tables

PAGE = Path(__file__).parents[2] / "docs/algorithms.md"
CITATION = "Somebody 2020, arXiv 2001.00001. The learner is"


def split_sections(page: str) -> dict[str, str]:
    """Return {algorithm: its section} of a page."""
    return {section.partition("\n")[0]: section for section in page.split("\n## ")[1:]}


WRITTEN = split_sections(PAGE.read_text("utf-8"))


def test_the_page_of_algorithms_is_what_the_command_prints(metarun_):
    said = metarun_("list", "--markdown")
    assert said.code == 0
    printed = split_sections("\n".join(said.out))
    # An algorithm that was just added may be missing on the page; no section may be out of date, or of nothing.
    for name, section in WRITTEN.items():
        remedy = "write it again: metarun list --markdown > docs/algorithms.md"
        assert section.strip() == printed.get(name, "").strip(), remedy


def test_the_page_has_every_algorithm_with_its_purpose_and_all_options():
    sections = split_sections(plugin_list.format_page())
    assert sections.keys() == set(plugins.list_names("algorithm"))
    for name, section in sections.items():
        assert plugins.read_summary("algorithm", name) in section
        for field in plugins.list_fields("algorithm", name):
            assert f"\n| `{field.name}` |" in section


@pytest.mark.parametrize("name", WRITTEN)
def test_every_section_cites_a_paper(name):
    passage = plugin_list.select_passage(plugins.read_docstring("algorithm", name))
    assert any(plugin_list.ARXIV.search(block) for block in passage)


@pytest.mark.parametrize(
    ("blocks", "count"),
    [
        (["It learns.", CITATION, "    f(x),", "and f is fixed.", "We differ in this."], 4),
        (
            ["It learns.", CITATION, "    f(x).", "It was tried.", "Another 2021, 2101.00001.", "We differ."],
            5,
        ),
        (["It learns.", CITATION], 2),
        (["It learns.", "Nobody published it.", "It is ours."], 3),
    ],
    ids=["a sentence around an equation", "two papers", "nothing after the paper", "no paper"],
)
def test_a_passage_ends_where_the_sentence_of_its_last_paper_does(blocks, count):
    assert plugin_list.select_passage("\n\n".join(blocks)) == blocks[:count]


def test_a_cell_of_a_table_may_have_a_bar():
    rows = text_tables.format_markdown_table(
        ["option", "meaning"], [["`scaling`", "log(1 + |v|)"]]
    ).splitlines()
    assert rows[-1] == r"| `scaling` | log(1 + \|v\|) |"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), ((40, 40), "[40, 40]"), ("scan", "scan"), (0.01, "0.01"), ((), "[]")],
)
def test_a_default_is_printed_as_a_config_has_it(value, text):
    assert plugin_list.format_default(value) == text


def test_an_option_that_must_be_given_is_required(metarun_):
    said = metarun_("list", "image_folder")
    assert any(line.split()[:2] == ["folder", "required"] for line in said.out)


def test_the_page_of_all_algorithms_takes_no_name(metarun_):
    assert_three_lines(metarun_("list", "maml", "--markdown"), 2, "metarun list maml --markdown", "leave out")
