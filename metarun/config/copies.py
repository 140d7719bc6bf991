"""Files for a user to begin with: a plug-in with its test and a config, and copies of the configs of metarun."""

import re
from pathlib import Path

import yaml

from metarun import errors, outside, plugins
from metarun.config import base_file, shipped, yaml_file
from metarun.config.origin import suggest

KINDS = tuple(outside.GROUPS)
TEMPLATES = Path(__file__).parents[1] / "templates"
NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
# The smallest config in which a new plug-in is trained.
CONFIG = """\
# The {kind} of {file}, in the smallest setting.
# Command: metarun train {config}
task: {{name: {task}}}
model: {{name: {model}}}
algorithm: {{name: {algorithm}}}
training: {{steps: 500}}
"""
OTHERS = {"task": "sinusoid", "model": "mlp", "algorithm": "maml"}


def write_plugin(kind: str, name: str, folder: Path) -> tuple[Path, Path, Path]:
    """Write a plug-in that works, its test and a config, and return their paths.

    Raises:
      UsageError: the name is none, or is taken.
      RunDirectoryError: a file is there already.
    """
    if not NAME.fullmatch(name):
        remedy = "begin with a small letter, then small letters, digits and _; at most 60"
        raise errors.UsageError(
            f"{name!r} cannot name a file of Python", f"metarun init {kind} {name}", remedy
        )
    if name in plugins.list_own_names(kind):
        remedy = f"choose another name, such as my_{name}"
        raise errors.UsageError(
            f"{name} is taken: metarun has one of this name", f"metarun init {kind} {name}", remedy
        )
    plugin, test, config = (folder / file for file in (f"{name}.py", f"test_{name}.py", f"{name}.yaml"))
    names = OTHERS | {kind: f"./{plugin.name}"}
    test_text = (TEMPLATES / "test.txt").read_text("utf-8")
    texts = {
        plugin: (TEMPLATES / f"{kind}.txt").read_text("utf-8"),
        test: test_text.format(kind=kind, file=plugin.name, test=test.name),
        config: CONFIG.format(kind=kind, file=plugin.name, config=config.name, **names),
    }
    write_new(texts)
    return plugin, test, config


def copy_config(name: str, to: Path | None) -> Path:
    """Write a config that comes with metarun, merged with the file that it extends, and return its path.

    Raises:
      UsageError: there is no config of this name.
      RunDirectoryError: the file is there already.
    """
    name = name.removeprefix("configs/").removesuffix(shipped.SUFFIX)
    if name not in shipped.list_names():
        hint = suggest(name, [*shipped.list_names(), *KINDS])
        remedy = f"{hint}`metarun list configs` shows them; or write algorithm, model or task, and a name"
        raise errors.UsageError(f"there is no config {name}", f"metarun init {name}", remedy)
    file = to or Path(f"{name.replace('/', '-')}{shipped.SUFFIX}")
    file = file / f"{name.replace('/', '-')}{shipped.SUFFIX}" if file.is_dir() else file
    write_new({file: merge_text(name, file)})
    return file


def merge_text(name: str, file: Path) -> str:
    """Return the header of a config and its whole content, without `extends`."""
    source = shipped.find_root() / f"{name}{shipped.SUFFIX}"
    text, lines = source.read_text("utf-8"), shipped.read_header(name)
    header = [f"# {line}".rstrip() for line in lines if not line.startswith(shipped.MODELINE)]
    header = [f"# Command: metarun train {file}" if "# Command:" in line else line for line in header]
    if re.search(rf"^{base_file.EXTENDS}:", text, re.MULTILINE):
        content = base_file.read(source).value
        body = yaml.dump(content, Dumper=yaml_file.Dumper, sort_keys=False, default_flow_style=None)
    else:
        body = "\n".join(text.splitlines()[len(lines) :]) + "\n"
    return "\n".join([*header, body.lstrip("\n")])


def write_new(texts: dict[Path, str]) -> None:
    """Write files that are not there yet; all of them, or none if one is there."""
    for path in texts:
        if path.exists() or path.is_symlink():
            remedy = "choose another name, or another folder with --to"
            raise errors.RunDirectoryError("there is a file here already", str(path), remedy)
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            what = f"the file cannot be written: {error.strerror}"
            raise errors.StorageError(what, str(path), "check the folder and the disk") from error
