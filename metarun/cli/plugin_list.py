"""`metarun list`."""

import difflib
import json
import re
from dataclasses import MISSING
from typing import Annotated, Any

import typer

from metarun import errors, plugins
from metarun.cli.text_tables import align, format_markdown_table

TITLES = {"task": "Task families", "model": "Models", "algorithm": "Algorithms"}
ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")  # an identifier such as 1703.03400
PAGE_HEAD = """\
# Algorithms

The command `metarun list --markdown` writes this page from the sources. A section says what an algorithm does, by which
equations and after which papers, and lists its options. The docstring of the algorithm's file says more, such as where
it differs from the papers. Several methods are one algorithm with other options: `configs/` has a file for each.
"""


def list_plugins(
    name: Annotated[str | None, typer.Argument(help="Show the options of one of them.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/algorithms.md: every algorithm, with its options.")
    ] = False,
) -> None:
    """List task families, models and algorithms, one line each."""
    if markdown and name:
        raise errors.UsageError(
            "--markdown is a page of all algorithms, and takes no name",
            f"metarun list {name} --markdown",
            "leave out the name, or --markdown",
        )
    if markdown:
        typer.echo(format_page(), nl=False)
    elif name:
        print_options(name)
    else:
        print_plugins()


def print_plugins() -> None:
    """Print every plug-in with the first line of its docstring."""
    for kind, title in TITLES.items():
        typer.echo(f"{title}:")
        typer.echo(
            align(["  " + name, plugins.read_summary(kind, name)] for name in plugins.list_names(kind))
        )
    typer.echo("\n`metarun list NAME` shows the options of one of them.")


def print_options(name: str) -> None:
    """Print the options of a plug-in: name, default, allowed values, meaning.

    Raises:
      UsageError: there is no such plug-in.
    """
    kinds = [kind for kind in plugins.FOLDERS if name in plugins.list_names(kind)]
    if not kinds:
        names = [plugin for kind in plugins.FOLDERS for plugin in plugins.list_names(kind)]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise errors.UsageError(
            f"there is no task family, model or algorithm {name}",
            f"metarun list {name}",
            f"{hint}choose one of {', '.join(names)}",
        )
    for kind in kinds:
        typer.echo(f"{kind} {name}: {plugins.read_summary(kind, name)}")
        rows = [
            [f"  {f.name}", format_default(f.default), f.description, f.comment]
            for f in plugins.list_fields(kind, name)
        ]
        typer.echo(align([["  option", "default", "allowed", "meaning"], *rows]))


def format_default(value: Any) -> str:
    """Return a default as one writes it in a config: `null`, `true`, `[40, 40]`; "required" if there is none."""
    if value is MISSING:
        return "required"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def format_page() -> str:
    """Return docs/algorithms.md."""
    return "\n".join([PAGE_HEAD, *map(format_section, plugins.list_names("algorithm"))])


def format_section(name: str) -> str:
    """Return an algorithm's heading, what it is, the passage that cites its paper, and a table of its options."""
    rows = [
        [f"`{field.name}`", f"`{format_default(field.default)}`", field.description, field.comment]
        for field in plugins.list_fields("algorithm", name)
    ]
    blocks = [f"## {name}", *select_passage(plugins.read_docstring("algorithm", name))]
    if rows:
        blocks.append(format_markdown_table(["option", "default", "allowed", "meaning"], rows))
    return "\n\n".join(blocks) + "\n"


def select_passage(docstring: str) -> list[str]:
    """Return the blocks of a docstring from its first line to the end of the last passage that cites a paper.

    A passage goes on after the citation as long as a block is an equation, which is indented, or ends a sentence around
    one, and so begins with a small letter. Without a citation the passage is the whole docstring.
    """
    blocks = docstring.split("\n\n")
    ends = [number for number, block in enumerate(blocks, start=1) if ARXIV.search(block)]
    end = max(ends, default=len(blocks))
    while end < len(blocks) and (blocks[end].startswith(" ") or blocks[end][0].islower()):
        end += 1
    return blocks[:end]
