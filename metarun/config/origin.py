"""Where each value came from, and the errors that say so."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metarun.errors import ConfigError

LONGEST = 400  # characters of one line of an error


def make_error(what: str, where: str, remedy: str) -> ConfigError:
    """Return a ConfigError whose three texts are one line each, without control characters from the file."""
    return ConfigError(*(_shorten(text) for text in (what, where, remedy)))


def choose(word: object, allowed: Iterable[str]) -> str:
    """Return a remedy: the nearest of the allowed words, and all of them."""
    words = list(allowed)
    return f"{suggest(word, words)}allowed: {', '.join(words) or 'none'}"


def suggest(word: object, words: Iterable[str]) -> str:
    """Return "did you mean X? " with the nearest word; "" if none is near."""
    nearest = difflib.get_close_matches(str(word)[:80], list(words), n=1)
    return f"did you mean {nearest[0]}? " if nearest else ""


def join(path: str, key: str | int) -> str:
    """Return the dotted path of a key in a section."""
    return f"{path}.{key}" if path else str(key)


def climb(path: str) -> Iterator[str]:
    """Yield a path and all sections around it: a.b.c, a.b, a."""
    while path:
        yield path
        path = path.rpartition(".")[0]


@dataclass(frozen=True)
class Origin:
    """The places of the values of one configuration, by dotted path."""

    file: str  # the configuration; the values may come from the file that it extends, too
    places: Mapping[str, str]  # path to `file:line`
    overrides: dict[str, str] = field(default_factory=dict)  # path to the text of the override that set it

    def replace(self, path: str, override: str) -> None:
        """Record that `path` and all below it now come from an override."""
        for stale in [key for key in self.overrides if f"{key}.".startswith(f"{path}.")]:
            del self.overrides[stale]
        self.overrides[path] = override

    def is_overridden(self, path: str) -> bool:
        """Tell whether an override has set the value at `path`, or one inside it."""
        around = any(section in self.overrides for section in climb(path))
        return around or any(key.startswith(f"{path}.") for key in self.overrides)

    def locate(self, path: str) -> str:
        """Return `file:line, key path`, or the override that set the value.

        The place of a section also names the overrides inside it.
        """
        for section in climb(path):
            if section in self.overrides:
                return f"override {self.overrides[section]}" + (f", key {path}" if section != path else "")
        inside = [f"override {text}" for key, text in self.overrides.items() if key.startswith(f"{path}.")]
        if inside and path not in self.places:
            return inside[0]
        place = next((self.places[section] for section in climb(path) if section in self.places), self.file)
        return ", ".join([place, *([f"key {path}"] if path else []), *inside])

    def find_folder(self, path: str) -> Path:
        """Return the folder where the value at `path` was written: of its file, or where an override was typed."""
        for section in climb(path):
            if section in self.overrides:
                return Path.cwd()
            if section in self.places:
                return Path(self.places[section].rpartition(":")[0]).absolute().parent
        return Path(self.file).absolute().parent

    def make_error(self, path: str, what: str, remedy: str) -> ConfigError:
        """Return the error of the value at `path`."""
        return make_error(what, self.locate(path), remedy)


def _shorten(text: str) -> str:
    printable = "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: 2 * LONGEST]
    )
    return printable if len(printable) <= LONGEST else printable[: LONGEST - 1] + "…"
