"""Where each value came from, and the errors that say so."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from metarun.errors import ConfigError

LONGEST = 400  # characters of one line of an error


def refusal(what: str, where: str, remedy: str) -> ConfigError:
    """A ConfigError whose three parts are one line each, without control characters from the file."""
    return ConfigError(*(_one_line(text) for text in (what, where, remedy)))


def choose(word: object, allowed: Iterable[str]) -> str:
    """A remedy: the nearest of the allowed words, and all of them."""
    words = list(allowed)
    nearest = difflib.get_close_matches(str(word)[:80], words, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"{hint}allowed: {', '.join(words) or 'none'}"


def join(path: str, key: str | int) -> str:
    """The dotted path of a key in a section."""
    return f"{path}.{key}" if path else str(key)


@dataclass(frozen=True)
class Origin:
    """The places of the values of one configuration, by dotted path."""

    file: str
    lines: Mapping[str, int]
    overrides: dict[str, str] = field(default_factory=dict)  # path to the text of the override that set it

    def replace(self, path: str, override: str) -> None:
        """From here on, `path` and all below it come from an override."""
        for stale in [key for key in self.overrides if f"{key}.".startswith(f"{path}.")]:
            del self.overrides[stale]
        self.overrides[path] = override

    def where(self, path: str) -> str:
        """`file:line, key path`, or the override that set it; for a section, with the overrides inside it."""
        for above in _upwards(path):
            if above in self.overrides:
                return f"override {self.overrides[above]}" + (f", key {path}" if above != path else "")
        inside = [f"override {text}" for key, text in self.overrides.items() if key.startswith(f"{path}.")]
        if inside and path not in self.lines:
            return inside[0]
        line = next((self.lines[above] for above in _upwards(path) if above in self.lines), None)
        place = f"{self.file}:{line}" if line else self.file
        return ", ".join([place, *([f"key {path}"] if path else []), *inside])

    def refuse(self, path: str, what: str, remedy: str) -> ConfigError:
        """The error of the value at `path`."""
        return refusal(what, self.where(path), remedy)


def _upwards(path: str) -> Iterable[str]:
    """a.b.c, a.b, a."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _one_line(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: 2 * LONGEST])
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
