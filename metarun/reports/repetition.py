"""The commands that repeat a run: those that were typed, and those that need nothing but its resolved config."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from metarun.reports.run_record import RunRecord, get_object


class Command(NamedTuple):
    """A command line and what it is for."""

    purpose: str
    line: str


def list_commands(record: RunRecord) -> list[Command]:
    """Return the commands, the most faithful first."""
    commands = [*list_typed(record.environment), *list_sources(record.environment)]
    config = shlex.quote(str(record.path / "config.yaml"))
    run = shlex.quote(str(record.path))
    commands += [
        Command("the same run again, from its resolved config", f"metarun train {config}"),
        Command("its stages measured again on the same episodes", f"metarun eval {run}"),
        Command("this page again", f"metarun report {run}"),
    ]
    return commands


def list_typed(environment: dict[str, Any]) -> list[Command]:
    """Return the command that was typed, with its folder and the variables that changed what it did."""
    argv = environment.get("argv")
    if not isinstance(argv, list) or not argv:
        return []
    program = Path(str(argv[0])).name
    words = ["python", "-m", "metarun"] if program == "__main__.py" else [program]
    line = shlex.join([*words, *map(str, argv[1:])])
    variables = get_object(environment, "variables")
    line = " ".join([*(f"{name}={shlex.quote(str(value))}" for name, value in variables.items()), line])
    folder = environment.get("cwd")
    return [Command("as it was typed", f"cd {shlex.quote(str(folder))} && {line}" if folder else line)]


def list_sources(environment: dict[str, Any]) -> list[Command]:
    """Return the commands that fetch the code: the commit of metarun, if one is known, and the packages."""
    commands = []
    versions = {name: version for name, version in get_object(environment, "versions").items() if version}
    commit = get_object(get_object(environment, "git"), "metarun")
    if commit.get("commit"):
        changed = ", which had changes that no commit has" if commit.get("dirty") else ""
        commands.append(Command(f"the code of metarun{changed}", f"git checkout {commit['commit']}"))
    if packages := [f"{name}=={version}" for name, version in versions.items() if name != "python"]:
        python = f", under Python {versions['python']}" if "python" in versions else ""
        commands.append(Command(f"the packages{python}", f"pip install {shlex.join(packages)}"))
    return commands
