"""The configs that come with metarun, by name: `sinusoid/maml` is configs/sinusoid/maml.yaml, wherever one works."""

from itertools import takewhile
from pathlib import Path, PurePosixPath

from metarun.config.origin import make_error, suggest

PACKAGE = Path(__file__).parents[1]
SUFFIX = ".yaml"
MODELINE = "yaml-language-server:"  # begins the line of a header that tells editors where the schema is


def find_root() -> Path:
    """Return the folder of the configs: inside the installed package, or beside it in a checkout."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def list_names() -> list[str]:
    """Return the names of all configs that train, sorted; base files are left out."""
    root = find_root()
    files = [file.relative_to(root).with_suffix("") for file in root.rglob(f"*{SUFFIX}")]
    return sorted(file.as_posix() for file in files if not file.name.startswith("base"))


def find_file(path: str | Path) -> Path:
    """Return the file that a user means: a path, or the name of a config that comes with metarun.

    A file that exists comes first. `configs/sinusoid/maml.yaml` is a name, too, so that the commands in the headers
    of the configs work anywhere.

    Raises:
      ConfigError: it is no file, has not the form of one, and is no name.
    """
    path = Path(path)
    parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    name = str(PurePosixPath(*parts)).removesuffix(SUFFIX) if parts else ""
    try:
        if path.exists() or path.is_absolute() or ".." in parts:
            return path
    except (OSError, ValueError):  # a name that no file can have: reading it says so
        return path
    file = find_root() / f"{name}{SUFFIX}"
    if name and file.is_file():
        return file
    if path.suffix:
        return path
    remedy = f"{suggest(name, list_names())}`metarun list configs` shows those that come with metarun"
    raise make_error("there is no such file, and no config of this name", str(path), remedy)


def read_header(name: str) -> list[str]:
    """Return the lines of the header of a config, without `#`."""
    lines = (find_root() / f"{name}{SUFFIX}").read_text("utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]


def read_summary(name: str) -> str:
    """Return the first sentence of the header of a config."""
    purpose = takewhile(lambda line: not line.startswith("Source:"), read_header(name))
    return " ".join(purpose).partition(". ")[0].rstrip(".")
