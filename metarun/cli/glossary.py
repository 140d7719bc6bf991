"""What `metarun list NAME` finds beside plug-ins: methods that a config names, optimizers, schedules, and sections.

A method such as ANIL is an algorithm with certain options. The configs that come with metarun are named after methods,
so they say which algorithm and which options these are.
"""

import dataclasses
from pathlib import PurePosixPath
from typing import Any

import typer

from metarun import config, plugins
from metarun.cli import text_tables
from metarun.cli.text_tables import align
from metarun.config import choices, schema, shipped
from metarun.config.selection import Selection

SECTIONS = {
    "training": schema.Training,
    "evaluation": schema.Evaluation,
    "checkpoint": schema.Checkpoint,
    "accelerator": config.Accelerator,
    "hosts": config.Hosts,
    "stages": schema.Stage,
}
# Short names of methods, and the names of their configs.
ALIASES = {
    "maml++": "maml-plus-plus",
    "cnp": "neural-process-conditional",
    "anp": "neural-process-attentive",
    "np": "neural-process",
    "mann": "external-memory",
}


def list_names() -> list[str]:
    """Return all names that `print_entry` knows, sorted."""
    tables = [name for table in choices.TABLES.values() for name in table]
    return sorted({*list_methods(), *tables, *SECTIONS})


def list_methods() -> list[str]:
    """Return the names of methods that are an algorithm with certain options, sorted."""
    own = {name for kind in plugins.FOLDERS for name in plugins.list_names(kind)}
    names = {PurePosixPath(name).name for name in shipped.list_names()}
    return sorted(name for name in names if name.replace("-", "_") not in own)


def find_configs(name: str) -> list[str]:
    """Return the configs that are named after a method, in any spelling: t-net, T_Net."""
    plain = name.lower().replace("_", "-")
    plain = ALIASES.get(plain, plain)
    return sorted((path for path in shipped.list_names() if PurePosixPath(path).name == plain), key=len)


def print_entry(name: str) -> bool:
    """Print what a name means, and return whether it means anything."""
    word, paths = name.lower(), find_configs(name)
    for kind, table in choices.TABLES.items():
        if word in table:
            print_section(f"{kind} {word}", table[word])
    if word in SECTIONS:
        print_section(f"section {word}", SECTIONS[word])
    if paths:
        print_method(name, paths)
    return bool(paths) or word in SECTIONS or any(word in table for table in choices.TABLES.values())


def print_section(title: str, section: type) -> None:
    """Print what a section is, and its options: name, default, allowed values, meaning."""
    typer.echo(f"{title}: {str(section.__doc__).splitlines()[0]}")
    fields = plugins.describe_fields(section)
    rows = [[f"  {f.name}", format_default(f.default), describe_allowed(f), f.comment] for f in fields]
    typer.echo(
        align([["  option", "default", "allowed", "meaning"], *rows]) if rows else "  it has no options"
    )


def describe_allowed(field: plugins.Field) -> str:
    """Say which values a field takes; of a choice, which names."""
    if field.name in choices.list_kinds():
        return f"a section {{name: …}} with one of {', '.join(choices.list_names(field.name))}"
    return field.description


def format_default(value: Any) -> str:
    """Return a default as one writes it in a config; a section by its name."""
    if isinstance(value, Selection):
        return f"{{name: {value.name}}}"
    is_section = dataclasses.is_dataclass(value) and value is not dataclasses.MISSING
    return "{}" if is_section else text_tables.format_default(value)


def print_method(name: str, paths: list[str]) -> None:
    """Print which algorithm a method is with which options, from the configs that are named after it."""
    typer.echo(f"{name}: {shipped.read_summary(paths[0])}")
    run_config = config.load(shipped.find_file(paths[0]))
    for stage in run_config.stages:
        options = list_set_options(stage.algorithm)
        beside = f" with {', '.join(f'{key}: {format_default(value)}' for key, value in options.items())}"
        typer.echo(f"  algorithm {stage.algorithm.name}{beside * bool(options)}")
    print_configs(paths)


def list_set_options(selection: Selection) -> dict[str, Any]:
    """Return the options of a choice that are not at their defaults."""
    fields = dataclasses.fields(selection.config)
    values = {field.name: getattr(selection.config, field.name) for field in fields}
    return {
        field.name: values[field.name] for field in fields if values[field.name] != plugins.get_default(field)
    }


def print_configs(paths: list[str]) -> None:
    """Print how the configs of a method are trained."""
    for path in paths:
        typer.echo(f"  metarun train {path}")


def print_names() -> None:
    """Print all names beside plug-ins."""
    typer.echo("Methods that are an algorithm with certain options, each in a config of this name:")
    typer.echo(fill(list_methods()))
    for kind, table in choices.TABLES.items():
        typer.echo(f"{kind.capitalize()}s:\n{fill(sorted(table))}")
    typer.echo(f"Sections of a config:\n{fill(list(SECTIONS))}")


def fill(names: list[str]) -> str:
    """Return names in lines of a terminal's width."""
    import textwrap

    lines = textwrap.wrap(
        ", ".join(names), 96, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return "\n".join(lines)
