"""`metarun list`."""

import difflib
import re
from typing import Annotated

import typer

from metarun import errors, outside, plugins
from metarun.cli import completion
from metarun.cli.text_tables import align, format_default, format_markdown_table

TITLES = {"task": "Task families", "model": "Models", "algorithm": "Algorithms"}
ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")  # an identifier such as 1703.03400
PAGE_HEAD = """\
# Algorithms

The command `metarun list --markdown` writes this page from the sources. A section says what an algorithm does, by which
equations and after which papers, and lists its options. The docstring of the algorithm's file says more, such as where
it differs from the papers. Several methods are one algorithm with other options: `configs/` has a file for each.
"""


def list_plugins(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show the options of one of them, a file or module too; `configs`: all configs.",
            autocompletion=completion.complete_name,
        ),
    ] = None,
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
    elif name == "configs":
        print_configs()
    elif name:
        print_options(name)
    else:
        print_plugins()


def print_plugins() -> None:
    """Print every plug-in with the first line of its docstring, and what else has a name."""
    from metarun.cli import glossary

    for kind, title in TITLES.items():
        typer.echo(f"{title}:")
        typer.echo(align(["  " + name, summarise(kind, name)] for name in plugins.list_names(kind)))
    glossary.print_names()
    typer.echo("\n`metarun list NAME` shows the options of one of them, `metarun list configs` all configs.")


def summarise(kind: str, name: str) -> str:
    """Return the first line about a plug-in; of one from elsewhere its package, too, and what is wrong with it."""
    if not plugins.is_outside(kind, name):
        return plugins.read_summary(kind, name)
    try:
        plugins.read_config_class(kind, name)
        summary = plugins.read_summary(kind, name)
    except (errors.ConfigError, plugins.PluginError) as error:
        summary = f"cannot be used: {getattr(error, 'what', error)}"
    package = outside.find_package(kind, name)
    return f"{summary} [{package}]" if package else summary


def print_configs() -> None:
    """Print the configs that come with metarun, each with the first line of its header."""
    from metarun.config import shipped

    typer.echo(align([name, shipped.read_summary(name)] for name in shipped.list_names()))
    typer.echo("\n`metarun train NAME` trains one of them, `metarun init NAME` copies it here.")


def print_options(name: str) -> None:
    """Print the options of a plug-in: name, default, allowed values, meaning.

    Raises:
      UsageError: there is no such plug-in.
    """
    from metarun.cli import glossary

    kinds = [kind for kind in plugins.FOLDERS if name in plugins.list_names(kind)]
    kinds = kinds or outside.guess_kinds(name)
    if not kinds and glossary.print_entry(name):
        return
    if not kinds:
        names = [plugin for kind in plugins.FOLDERS for plugin in plugins.list_names(kind)]
        names += glossary.list_names()
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise errors.UsageError(
            f"there is no task family, model, algorithm, method, optimizer, schedule or section {name}",
            f"metarun list {name}",
            f"{hint}choose one of {', '.join(names)}",
        )
    for kind in kinds:
        typer.echo(f"{kind} {name}: {summarise(kind, name)}")
        rows = [
            [f"  {f.name}", format_default(f.default), f.description, f.comment]
            for f in plugins.list_fields(kind, name)
        ]
        typer.echo(align([["  option", "default", "allowed", "meaning"], *rows]))
    glossary.print_configs(glossary.find_configs(name))


def format_page() -> str:
    """Return docs/algorithms.md."""
    return "\n".join([PAGE_HEAD, *map(format_section, plugins.list_own_names("algorithm"))])


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
