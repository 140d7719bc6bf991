"""The file that a configuration extends: `extends: base.yaml` takes all values that it does not give itself.

There is one level: a file that is extended does not extend another one. Sections merge key by key; any other value,
a list too, replaces that of the base file. Where both files give a section a `name`, and not the same one, the
section comes from the extending file alone, because the options of the other choice do not fit.
"""

from pathlib import Path
from typing import Any

from metarun.config import yaml_file
from metarun.config.origin import Origin, climb, join
from metarun.config.yaml_file import Parsed
from metarun.errors import ConfigError

EXTENDS = "extends"
FOLDER = "configs"  # the name of a folder whose files may extend each other across its subfolders


def read(path: Path) -> Parsed:
    """Return the mapping of a file, merged with that of the file that it extends, and without `extends`."""
    extending = yaml_file.read(path)
    if EXTENDS not in extending.value:
        return extending
    origin = Origin(str(path), extending.places)
    base_path = _find(path, extending.value.pop(EXTENDS), origin)
    base = yaml_file.read(base_path)
    if EXTENDS in base.value:
        raise Origin(str(base_path), base.places).make_error(
            EXTENDS,
            f"{base_path} is extended by {path} and extends a file itself",
            "extend a file that extends no other: there is one level",
        )
    return merge(base, extending)


def merge(base: Parsed, extending: Parsed) -> Parsed:
    """Return the values of `base`, replaced by those of `extending` where it has them; each keeps its place."""
    replaced: set[str] = set()
    value = _merge_sections(base.value, extending.value, "", replaced)
    kept = {path: place for path, place in base.places.items() if replaced.isdisjoint(climb(path))}
    return Parsed(value, kept | extending.places)


def _merge_sections(
    base: dict[str, Any], extending: dict[str, Any], path: str, replaced: set[str]
) -> dict[str, Any]:
    """Merge two sections, and add to `replaced` the path of every value that `extending` alone decides."""
    merged = {**base}
    for key, value in extending.items():
        place = join(path, key)
        if _may_merge(base.get(key), value):
            merged[key] = _merge_sections(base[key], value, place, replaced)
        else:
            replaced.add(place)
            merged[key] = value
    return merged


def _may_merge(base: Any, extending: Any) -> bool:
    """Tell whether both values are sections, and not two choices of different names."""
    if not (isinstance(base, dict) and isinstance(extending, dict)):
        return False
    return "name" not in base or "name" not in extending or base["name"] == extending["name"]


def _find(path: Path, extends: Any, origin: Origin) -> Path:
    """Return the path of the extended file, or refuse it."""
    if not isinstance(extends, str) or not extends.strip():
        raise _refuse(
            origin, "extends does not name a file", "write the path of one file: extends: base.yaml"
        )
    if Path(extends).is_absolute():
        raise _refuse(
            origin,
            f"extends is an absolute path: {extends}",
            "write the path as seen from the folder of this file",
        )
    base_path = path.parent / extends
    try:
        root, real_path, real_base = _find_root(path), path.resolve(), base_path.resolve()
        is_file = base_path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null character, a name too long
        what = f"the file that it extends cannot be found: {error}"
        raise _refuse(origin, what, "check the path and its links") from None
    if real_base == real_path:
        raise _refuse(origin, f"{path} extends itself", "name another file, or take the line out")
    if not real_base.is_relative_to(root):
        raise _refuse(
            origin,
            f"{base_path} lies outside of the folder of configs, {root}",
            "extend a file inside that folder; a link must not lead out of it",
        )
    if not is_file:
        raise _refuse(origin, f"there is no file {base_path}", yaml_file.suggest_sibling(base_path))
    return base_path


def _find_root(path: Path) -> Path:
    """Return the folder of configs: the nearest folder `configs` above the file, or else the file's own folder.

    Links in the path of the file's folder are followed first.
    """
    folder = path.parent.resolve()
    return next((above for above in (folder, *folder.parents) if above.name == FOLDER), folder)


def _refuse(origin: Origin, what: str, remedy: str) -> ConfigError:
    return origin.make_error(EXTENDS, what, remedy)
