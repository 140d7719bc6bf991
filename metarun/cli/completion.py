"""What a shell completes: configs, runs, keys of a config, data sets, and names for `metarun list`.

`metarun --install-completion` sets it up for the shell. Each function returns the words that begin with what was
typed, and none where something is wrong: a completion must not disturb the line that somebody writes.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

import typer

Complete = Callable[[typer.Context, str], list[str]]


def quietly(list_words: Callable[[typer.Context, str], Iterable[str]]) -> Complete:
    """Make a completion of a function that lists words: those that begin with what was typed."""

    @functools.wraps(list_words)
    def complete(context: typer.Context, incomplete: str) -> list[str]:
        with suppress(Exception):
            return [word for word in list_words(context, incomplete) if word.startswith(incomplete)]
        return []

    return complete


@quietly
def complete_config(context: typer.Context, incomplete: str) -> Iterable[str]:
    """List YAML files and folders that begin so, then the configs that come with metarun; or runs that go on."""
    from metarun.config import shipped

    if context.params.get("resume") or context.params.get("extend"):
        yield from complete_run(context, "")
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and not path.name.startswith("."):
            yield f"{path}/"
        elif path.suffix in (".yaml", ".yml"):
            yield str(path)
    yield from shipped.list_names()


@quietly
def complete_run(context: typer.Context, incomplete: str) -> Iterable[str]:
    """List the runs below `runs`, the newest first."""
    from metarun.runs import catalogue

    runs = [folder.path for folder in catalogue.list_folders() if folder.problem is None]
    newest = sorted(runs, key=catalogue.read_time, reverse=True)
    return [*(["latest"] if runs else []), *map(str, newest)]


@quietly
def complete_key(context: typer.Context, incomplete: str) -> Iterable[str]:
    """List the keys of the config that was named, each with `=`."""
    from metarun import config

    file = config.find_file(context.params["config_file"])
    return (f"{key}=" for key in list_keys(config.document(config.load(file))))


@quietly
def complete_measured_key(context: typer.Context, incomplete: str) -> Iterable[str]:
    """List the keys that may be overridden for a finished run, each with `=`."""
    from metarun import config

    sections: dict[str, Any] = {"evaluation": config.Evaluation, "accelerator": config.Accelerator}
    return (f"{name}.{key}=" for name, section in sections.items() for key in get_type_hints(section))


@quietly
def complete_name(context: typer.Context, incomplete: str) -> Iterable[str]:
    """List the names that `metarun list` knows."""
    from metarun import plugins
    from metarun.cli import glossary

    names = {name for kind in plugins.FOLDERS for name in plugins.list_names(kind)}
    return sorted({*names, *glossary.list_names(), "configs"})


@quietly
def complete_data_set(context: typer.Context, incomplete: str) -> Iterable[str]:
    """List the published data sets."""
    from metarun.data import datasets

    return datasets.list_names()


def complete_word(*words: str) -> Complete:
    """Make a completion of fixed words."""

    @quietly
    def complete(context: typer.Context, incomplete: str) -> Iterable[str]:
        return words

    return complete


def list_keys(section: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys of all values of a config; a stage goes by its name."""
    if isinstance(section, dict):
        for key, value in section.items():
            yield from list_keys(value, f"{path}.{key}" if path else key)
    elif path == "stages":
        for stage in section:
            yield from list_keys(stage, f"{path}.{stage['name']}")
    else:
        yield path
